"""What two movers do when their lanes are cut: every phase, with real NBD servers of QEMU. Run by test_mover.py."""
import os
import time

from mover_checks import (MIB, carry_memory, copy, disk_pair, equal, fails, memory_arrives, quiesce, test)
from mover_lab import (GO, HELD, HOLD, HOLD_LAST, LANE, LANE_LOST, LANE_UP, LAST_HELD, LEVEL_OFF, MEMORY, MEMORY_DONE, MEMORY_SENT,
                       PASS, PASS_DONE, RELEASE, RESUME, RESUMED, DESTINATION, SEGMENT_BYTES, SOURCE, Drain, Failed, Feeder,
                       Proxy, qemu_rounds, qemu_stream, run, tcp_pair)

RATE = 12 * MIB  # bytes a second of a slowed lane: a cut then finds much on its way
HEADERS = 256 << 10  # more than all frames on their way have in headers


def slow(a, b):
    Proxy(a, b, rate=RATE)


def until(mover, what, condition, timeout=30):
    """Receives until CONDITION is true of the sample; other reports are kept."""
    end = time.monotonic() + timeout
    while mover.sample is None or not condition(mover.sample):
        if time.monotonic() > end:
            raise Failed(f'{mover.name}: {what}: not within {timeout} s')
        mover.settle(0.05)
    for kind in (PASS_DONE, MEMORY_DONE):
        equal(mover.count(kind), 0, f'what was over before it was cut ({what})')


def under_way(source):
    """Bytes that the source has not seen acknowledged: what a resume may send again, at most."""
    source.settle()
    sample = source.sample
    return sample.disk_bytes - sample.disk_acknowledged + sample.stream_bytes - sample.stream_acknowledged


def order_resume(mover):
    mover.order(RESUME)
    mover.wait(RESUMED)
    for report in [report for report in mover.kept if report.type in (LANE_UP, LANE_LOST)]:
        mover.kept.remove(report)


def resume(lab, source, destination, lanes=2, between=None):
    """Both, in the daemons' order, and new lanes. Returns how many bytes may be sent again."""
    left = under_way(source)
    order_resume(destination)
    order_resume(source)
    lab.connect_lanes(source, destination, lanes, between, lanes)
    return left


def cut_and_resume(lab, source, destination, **options):
    lab.link.cut()
    return resume(lab, source, destination, **options)


def resent(source, at_most):
    got = source.sample.resent_bytes
    if not 0 < got <= at_most + HEADERS:
        raise Failed(f'{got} bytes were sent again, {at_most} were under way')


def raw_images(lab, size):
    """A source of noise and an empty destination, both raw."""
    a, b = lab.path('a'), lab.path('b')
    with open(a, 'wb') as file:
        file.write(os.urandom(size))
    with open(b, 'wb') as file:
        file.truncate(size)
    return a, b


def dirty_image(lab, size):
    """A qcow2 of SIZE with a bitmap, to be written to before a pass over it."""
    path = lab.path('a.qcow2')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', path, str(size))
    run('qemu-img', 'bitmap', '--add', '-g', '65536', path, 'w0')
    return path


def write(image, *what):
    run('qemu-io', '-f', 'qcow2', *(word for command in what for word in ('-c', command)), image)


@test
def a_cut_in_the_bulk_pass_costs_what_was_under_way(lab):
    a, b = raw_images(lab, 64 * MIB)
    source, destination = lab.pair(level=LEVEL_OFF, between=slow, between_lanes=2)
    disk_pair(lab, source, destination, 0, 64 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    until(source, 'the bulk pass', lambda sample: sample.disk_acknowledged > 8 * MIB)
    left = cut_and_resume(lab, source, destination)
    done = source.wait(PASS_DONE).passing
    equal((done.data_bytes, done.zero_bytes), (64 * MIB, 0), 'what PASS_DONE tells')
    equal(source.sample.disk_acknowledged, 64 * MIB, 'disk_acknowledged')
    resent(source, left)
    if source.sample.disk_wire_bytes < 64 * MIB + source.sample.resent_bytes:
        raise Failed('disk_wire_bytes does not count what was sent again')
    quiesce(destination)
    equal((source.count(PASS_DONE), destination.sample.resent_bytes), (0, 0), 'PASS_DONE once more, resent_bytes over there')
    lab.stop_servers()
    run('cmp', a, b)


@test
def a_cut_in_a_dirty_pass(lab):
    a = dirty_image(lab, 256 * MIB)
    b = lab.path('b')
    with open(b, 'wb') as file:
        file.truncate(256 * MIB)
    write(a, 'write -P 0x11 0 48M', 'write -P 0x22 100M 32M')
    source, destination = lab.pair(level=LEVEL_OFF)
    disk_pair(lab, source, destination, 0, 256 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'qcow2', 'live', '-r'), b'live')
    source.order(RELEASE, disk=0, number=0)
    lab.servers[1].terminate()
    lab.servers[1].wait()
    write(a, 'write -P 0x33 2M 40M', 'discard 110M 8M', 'write -P 0x44 200M 64k')
    # The idle lanes of the bulk pass go too: a RESUME with nothing on its way, onto slow ones.
    cut_and_resume(lab, source, destination, between=slow)
    before = source.sample.disk_acknowledged
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'qcow2', 'live', '-r', '-B', 'w0')), disk=0, number=1,
                 export_name=b'live', context=b'qemu:dirty-bitmap:w0')
    until(source, 'the dirty pass', lambda sample: sample.disk_acknowledged > before + 8 * MIB)
    equal(source.sample.resent_bytes, 0, 'what was sent again while nothing was under way')
    left = cut_and_resume(lab, source, destination)
    source.wait(PASS_DONE)
    resent(source, left)
    quiesce(destination)
    lab.stop_servers()
    run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', a, b)


@test
def a_cut_in_the_memory_stream(lab):
    stream = qemu_stream(20000, MIB)
    source, destination, feeder, drain = carry_memory(lab, stream, level=LEVEL_OFF, between=slow, between_lanes=2)
    until(source, 'the stream', lambda sample: sample.stream_acknowledged > 8 * MIB)
    lab.link.cut()
    source.settle(0.5)
    source.wait(LANE_LOST)
    destination.wait(LANE_LOST)
    # Without lanes it stands still, with no more than a window's worth read.
    sent = feeder.sent
    source.settle(0.3)
    equal(feeder.sent, sent, 'what was read of the stream without lanes')
    left = resume(lab, source, destination)
    memory_arrives(source, destination, drain, stream)
    resent(source, left)
    equal(source.sample.stream_acknowledged, len(stream), 'stream_acknowledged')
    equal((source.sample.pages, destination.sample.pages), (20000, 20000), 'the pages counted')


@test
def a_cut_among_differences(lab):
    stream, lean, left_out = qemu_rounds(6000, 6, MIB, few_words=True)
    source, destination, _, drain = carry_memory(lab, stream, level=LEVEL_OFF, between=slow, between_lanes=2)
    for share in (0.4, 0.6, 0.8):
        until(source, 'the stream', lambda sample, share=share: sample.stream_acknowledged > share * len(lean))
        cut_and_resume(lab, source, destination, **({'between': slow} if share < 0.8 else {}))
    memory_arrives(source, destination, drain, lean)
    equal((source.sample.same_pages, source.sample.delta_pages), (left_out, 2000 * 4), 'same_pages and delta_pages')
    if source.sample.resent_bytes == 0:
        raise Failed('nothing was under way at the cuts')


@test
def a_cut_while_held(lab):
    stream = qemu_stream(8000, MIB)
    source, destination = lab.pair()
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    source.order(HOLD, pages=3000)
    destination.order(MEMORY, fd_in)
    source.order(MEMORY, fd_out)
    Feeder(qemu_out, stream)
    drain = Drain(qemu_in)
    source.wait(HELD)
    lab.link.silence()  # what was read last is on its way, or was, and its RECEIVED
    cut_and_resume(lab, source, destination)
    source.settle(0.5)
    equal(source.count(HELD), 0, 'HELD once more')
    equal(len(drain.data), source.sample.stream_bytes, 'what had been read and arrived while held')
    source.order(GO)
    memory_arrives(source, destination, drain, stream)


@test
def a_cut_at_the_last_segment(lab):
    stream = os.urandom(12 * SEGMENT_BYTES + 1000)
    source, destination, _, drain = carry_memory(lab, stream, flags=HOLD_LAST)
    source.wait(LAST_HELD)
    cut_and_resume(lab, source, destination)
    source.settle(0.3)
    equal(source.count(LAST_HELD), 0, 'LAST_HELD once more')
    equal(len(drain.data), 12 * SEGMENT_BYTES, 'what arrived before GO')
    # And once more, with GO while there is no lane.
    lab.link.cut()
    source.order(GO)
    resume(lab, source, destination)
    memory_arrives(source, destination, drain, stream)


def end_is_lost(lab, **silent):
    """END is sent, and what SILENT says does not arrive."""
    stream = os.urandom(12 * SEGMENT_BYTES + 1000)
    source, destination, _, drain = carry_memory(lab, stream, flags=HOLD_LAST)
    source.wait(LAST_HELD)
    until(source, 'the rest', lambda sample: sample.stream_acknowledged == 12 * SEGMENT_BYTES)
    lab.link.silence(**silent)
    source.order(GO)
    source.settle(0.5)
    source.wait(MEMORY_SENT)
    equal(source.count(MEMORY_DONE), 0, 'MEMORY_DONE without an answer')
    return stream, source, destination, drain


def once_done(source, destination):
    for mover in (source, destination):
        mover.settle(0.3)
        equal(mover.count(MEMORY_DONE), 0, f'MEMORY_DONE once more of {mover.name}')
    quiesce(destination)


@test
def an_end_that_was_lost_is_repeated(lab):
    stream, source, destination, drain = end_is_lost(lab)
    equal(len(drain.data), 12 * SEGMENT_BYTES, 'what has arrived')
    left = cut_and_resume(lab, source, destination)
    memory_arrives(source, destination, drain, stream)
    resent(source, left)
    once_done(source, destination)


@test
def an_end_whose_answer_was_lost_is_answered_again(lab):
    stream, source, destination, drain = end_is_lost(lab, at_destination=False)
    if drain.wait() != stream:
        raise Failed('the stream that arrived differs')
    for _ in range(3):
        cut_and_resume(lab, source, destination)
    memory_arrives(source, destination, drain, stream)
    once_done(source, destination)


@test
def ten_cuts_in_a_row(lab):
    a, b = raw_images(lab, 80 * MIB)
    stream = qemu_stream(15000, MIB)
    source, destination, _, drain = carry_memory(lab, stream, level=LEVEL_OFF)
    disk_pair(lab, source, destination, 0, 80 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    left = 0
    for number in range(10):
        left += cut_and_resume(lab, source, destination, between=slow)
        # Sometimes in the middle of a frame, sometimes before the handshakes' dust has settled.
        time.sleep(0.07 * (number % 4))
    equal(source.count(PASS_DONE), 0, 'what was over before it was cut')
    left += cut_and_resume(lab, source, destination)
    source.wait(PASS_DONE)
    memory_arrives(source, destination, drain, stream)
    resent(source, left)
    quiesce(destination)
    if not lab.sanitized and source.most_resident > 100 * MIB:
        raise Failed(f'the source has {source.most_resident >> 20} MiB')
    lab.stop_servers()
    run('cmp', a, b)


@test
def what_no_lane_had_taken_is_not_sent_twice(lab):
    a, b = raw_images(lab, 4 * MIB)
    stream = os.urandom(2 * MIB)
    source, destination = lab.mover('source', SOURCE), lab.mover('destination', DESTINATION)
    order_resume(source)
    disk_pair(lab, source, destination, 0, 4 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    source.order(MEMORY, fd_out)
    destination.order(MEMORY, fd_in)
    Feeder(qemu_out, stream)
    drain = Drain(qemu_in)
    until(source, 'reading', lambda sample: sample.disk_bytes == 4 * MIB and sample.stream_bytes >= MIB)
    for _ in range(3):
        for mover in (destination, source):
            mover.order(RESUME)
    for _ in range(3):
        for mover in (destination, source):
            mover.wait(RESUMED)
    lab.connect_lanes(source, destination)
    source.wait(PASS_DONE)
    memory_arrives(source, destination, drain, stream)
    equal(source.sample.resent_bytes, 0, 'resent_bytes')
    quiesce(destination)
    lab.stop_servers()
    run('cmp', a, b)


@test
def resumes_without_lanes_between_them(lab):
    a, b = raw_images(lab, 32 * MIB)
    source, destination = lab.pair(level=LEVEL_OFF, between=slow, between_lanes=2)
    disk_pair(lab, source, destination, 0, 32 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    until(source, 'the pass', lambda sample: sample.disk_acknowledged > 4 * MIB)
    # The lanes live: RESUME ends them, which is no news to who ordered it, but is at the other side.
    source.may_lose_lanes = True
    left = under_way(source)
    destination.order(RESUME)
    destination.wait(RESUMED)
    source.settle()
    equal((destination.count(LANE_LOST), source.count(LANE_LOST)), (0, 2), 'LANE_LOST there and here')
    for _ in range(3):
        order_resume(source)
        order_resume(destination)
    equal(source.sample.resent_bytes, 0, 'what was sent again without a lane')
    # Lanes that never come up: the other end says nothing.
    ends = []
    for index in range(2):
        for mover in (source, destination):
            ours, theirs = tcp_pair()
            ends.append(ours)
            mover.order(LANE, theirs.detach(), index=index, ticket=os.urandom(16), key=os.urandom(32))
    begun = time.monotonic()
    left += resume(lab, source, destination)
    if time.monotonic() - begun > 3:
        raise Failed('a RESUME waits for handshakes')
    source.wait(PASS_DONE)
    resent(source, left)
    quiesce(destination)
    lab.stop_servers()
    run('cmp', a, b)


@test
def an_idle_lane_that_is_lost_holds_up_nothing(lab):
    a, b = raw_images(lab, 65536)
    source, destination = lab.pair(lanes=3)
    disk_pair(lab, source, destination, 0, 65536, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.settle()
    lab.link.cut(lanes=[0])
    equal([mover.wait(LANE_LOST).lane.index for mover in (source, destination)], [0, 0], 'the lane lost')
    # The others carry everything, without a RESUME: nothing was in that one. The one extent, FLUSH or DONE that is put in
    # at a time must wake a lane that lives.
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'raw', 'live', '-r'), b'live')
    quiesce(destination)
    lab.stop_servers()
    run('cmp', a, b)


@test
def silence_is_found_out(lab):
    a, b = raw_images(lab, 48 * MIB)
    source, destination = lab.pair(level=LEVEL_OFF, between=slow, between_lanes=2)
    disk_pair(lab, source, destination, 0, 48 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    until(source, 'the pass', lambda sample: sample.disk_acknowledged > 4 * MIB)
    for busy in (True, False):
        source.may_lose_lanes = destination.may_lose_lanes = True
        begun = time.monotonic()
        lab.link.silence()
        for _ in range(2):
            source.wait(LANE_LOST, 12)
            destination.wait(LANE_LOST, 12)
        seconds = time.monotonic() - begun
        if not 3 < seconds < 9:
            raise Failed(f'{"busy" if busy else "idle"} lanes were found dead after {seconds:.1f} s')
        resume(lab, source, destination)
        if busy:
            source.wait(PASS_DONE)
    quiesce(destination)
    lab.stop_servers()
    run('cmp', a, b)


@test
def writes_that_the_throttle_holds_back_are_awaited(lab):
    size = 8 * MIB
    a = dirty_image(lab, size)
    b = lab.path('b')
    with open(b, 'wb') as file:
        file.truncate(size)
    write(a, 'write -P 0x11 0 8M')
    socket, qmp = lab.throttled_qemu(b, 'disk0', 256 << 10)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, size, socket)
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'qcow2', 'live', '-r')), disk=0, number=0, export_name=b'live')
    until(source, 'the pass', lambda sample: sample.disk_bytes == size and sample.disk_acknowledged > 0)
    lab.link.cut()
    destination.order(RESUME)
    destination.settle(1.5)
    equal(destination.count(RESUMED), 0, 'RESUMED while writes are in the hands of QEMU')
    written = destination.sample.disk_bytes
    if not 0 < written < size:
        raise Failed(f'{written} bytes were written at the cut')
    qmp('qom-set', path='/objects/slow', property='limits', value={'bps-write': 0})
    destination.wait(RESUMED)
    destination.settle()
    written = destination.sample.disk_bytes
    left = source.sample.disk_bytes - source.sample.disk_acknowledged
    order_resume(source)
    destination.settle(0.5)
    equal(destination.sample.disk_bytes, written, 'what was written after RESUMED, without a lane')
    lab.connect_lanes(source, destination)
    source.wait(PASS_DONE)
    resent(source, left)
    source.order(RELEASE, disk=0, number=0)
    lab.servers[1].terminate()
    lab.servers[1].wait()
    write(a, 'write -P 0x22 1M 4M', 'write -P 0x33 7M 64k')
    copy(lab, source, 0, 1, lab.qemu_nbd(a, 'qcow2', 'live', '-r', '-B', 'w0'), b'live', b'qemu:dirty-bitmap:w0')
    quiesce(destination)
    qmp.close()
    lab.stop_servers()
    run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', a, b)


@test
def a_lane_before_resumed_is_an_error(lab):
    a, _ = raw_images(lab, MIB)
    source, destination = lab.pair()
    target = lab.serve('nbdkit', '-f', '-U', '{socket}', '--filter=delay', 'memory', str(MIB), 'wdelay=2')
    disk_pair(lab, source, destination, 0, MIB, target)
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    until(destination, 'the extents', lambda sample: sample.disk_wire_bytes > MIB)
    destination.order(RESUME)
    ours, theirs = tcp_pair()
    destination.order(LANE, theirs.detach(), index=0, ticket=os.urandom(16), key=os.urandom(32))
    fails(destination, 'orders', 'RESUMED was not reported')
    ours.close()


@test
def a_qemu_that_reads_nothing_does_not_hold_up_resumed(lab):
    stream = os.urandom(12 * MIB)
    source, destination = lab.pair(level=LEVEL_OFF)
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    source.order(MEMORY, fd_out)
    Feeder(qemu_out, stream)
    source.settle(1)
    begun = time.monotonic()
    left = cut_and_resume(lab, source, destination)
    if time.monotonic() - begun > 3:
        raise Failed('RESUMED took its time')
    memory_arrives(source, destination, Drain(qemu_in), stream)
    resent(source, left)


@test
def quiesce_without_lanes(lab):
    a, b = raw_images(lab, MIB)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'raw', 'live', '-r'), b'live')
    lab.link.cut()
    quiesce(destination)
    for mover in (destination, source):
        order_resume(mover)
    lab.connect_lanes(source, destination)
    for mover in (destination, source):
        equal(mover.close(), 0, f'the exit status of {mover.name}')
    lab.stop_servers()
    run('cmp', a, b)
