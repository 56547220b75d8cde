#!/usr/bin/python3
"""Two real movers against each other, with real NBD servers and real lanes; this test plays both daemons and both QEMUs.

    test_mover.py [WATARI-MOVER [NAME...]]     the binary, or $WATARI_BUILD/watari-mover; tests by name
"""
import ctypes
import os
import struct
import subprocess
import sys
import time

import mover_lab
import mover_resume  # its tests are run with those of this file, as are those of mover_verify
import mover_verify
from mover_checks import (MIB, allocated, carry_memory, contains, copy, disk_pair, equal, fails, lying_peer,
                          make_source_image, memory_arrives, quiesce, run_all, test)
from mover_lab import (DISK, GO, HELD, HOLD, HOLD_LAST, LANE, LANE_LOST, LANE_UP, LAST_HELD, LEFT, LEVEL_OFF, MEMORY,
                       MEMORY_DONE, PASS, PASS_DONE, QUIESCE, RELEASE, DESTINATION, SEGMENT_BYTES, SOURCE, Drain, Failed, Feeder,
                       LyingPeer, Proxy, qemu_rounds, qemu_stream, run, tcp_pair)

SEGMENT, CHECKPOINT, END, EXTENT, FLUSH, FAIL = 16, 17, 18, 32, 33, 48


@test
def starts_only_under_a_daemon(lab):
    for arguments, kept in (([lab.binary], []), ([lab.binary, '--help'], [])):
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=kept)
        equal(done.returncode, 2, 'the exit status')
        contains(done.stderr, 'started by watarid')


@test
def bulk_pass_copies_and_stays_thin(lab):
    a, b = lab.path('a.qcow2'), lab.path('b.qcow2')
    make_source_image(a)
    run('qemu-img', 'create', '-q', '-f', 'qcow2', b, '1G')
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, 1 << 30, lab.qemu_nbd(b, 'qcow2', 'disk0'))
    done = copy(lab, source, 0, 0, lab.qemu_nbd(a, 'qcow2', 'live', '-r'), b'live')
    equal(done.data_bytes, 21 * MIB + 65536, 'data_bytes')
    equal(done.data_bytes + done.zero_bytes, 1 << 30, 'data and zero bytes together')
    source.order(RELEASE, disk=0, number=0)
    quiesce(destination)
    equal(source.sample.disk_acknowledged, done.data_bytes, 'disk_acknowledged')
    equal(source.sample.pass_left[0], 0, 'pass_left')
    equal(source.close(), 0, "the source's exit status")
    equal(destination.close(), 0, "the destination's exit status")
    lab.stop_servers()
    run('qemu-img', 'compare', a, b)
    if allocated(b) > 24 * MIB:
        raise Failed(f'the destination has {allocated(b)} bytes allocated')


@test
def bulk_pass_begins_where_another_mover_had_come(lab):
    a, b, size, start = lab.path('a'), lab.path('b'), 64 * MIB, 20 * MIB + 65536
    with open(a, 'wb') as file:
        file.write(os.urandom(size))
    with open(b, 'wb') as file:
        file.truncate(size)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, size, lab.qemu_nbd(b, 'raw', 'disk0'))
    done = copy(lab, source, 0, 0, lab.qemu_nbd(a, 'raw', 'live', '-r'), b'live', start=start)
    equal(done.data_bytes, size - start, 'data_bytes')
    equal(source.sample.pass_reached[0], size, 'pass_reached')
    quiesce(destination)
    lab.stop_servers()
    with open(a, 'rb') as one, open(b, 'rb') as other:
        equal(other.read(start).count(0), start, 'zeroes before the start')
        one.seek(start)
        equal(one.read() == other.read(), True, 'whether the rest is there')


@test
def what_is_reached_is_at_the_destination(lab):
    """A mover is killed in the middle of its pass: below what it last said, all is there."""
    a, b, size = lab.path('a'), lab.path('b'), 256 * MIB
    with open(a, 'wb') as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    with open(b, 'wb') as file:
        file.truncate(size)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, size, lab.qemu_nbd(b, 'raw', 'disk0'))
    destination.may_lose_lanes = True
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    while source.sample is None or source.sample.pass_reached[0] < 16 * MIB:
        source.settle(0.02)
    source.kill()
    reached = source.sample.pass_reached[0]
    quiesce(destination)
    lab.stop_servers()
    run('cmp', '-n', str(reached), a, b)
    print(f'  killed at {reached / size:.0%} of the disk')


@test
def dirty_pass_follows_the_bitmap(lab):
    a, b = lab.path('a.qcow2'), lab.path('b.qcow2')
    make_source_image(a)
    run('qemu-img', 'bitmap', '--add', '-g', '65536', a, 'w0')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', b, '1G')
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, 1 << 30, lab.qemu_nbd(b, 'qcow2', 'disk0'))
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'qcow2', 'live', '-r'), b'live')
    source.order(RELEASE, disk=0, number=0)
    lab.servers[1].terminate()
    lab.servers[1].wait()
    run('qemu-io', '-f', 'qcow2', '-d', 'unmap', '-c', 'write -P 0x33 5M 64k', '-c', 'write -P 0x44 500M 1M', '-c',
        'discard 10M 2M', '-c', 'write -P 0x12 100M 4k', a)
    server = lab.qemu_nbd(a, 'qcow2', 'live', '-r', '-B', 'w0')
    done = copy(lab, source, 0, 1, server, b'live', b'qemu:dirty-bitmap:w0')
    equal(done.data_bytes, MIB + 2 * 65536, 'data_bytes of the dirty pass')
    equal(done.zero_bytes, 2 * MIB, 'zero_bytes of the dirty pass')
    source.order(RELEASE, disk=0, number=1)
    quiesce(destination)
    lab.stop_servers()
    run('qemu-img', 'compare', a, b)
    if allocated(b) > 24 * MIB:
        raise Failed(f'the destination has {allocated(b)} bytes allocated')


@test
def odd_sizes_and_several_disks_at_once(lab):
    sizes = [10 * MIB + 512, 64 * MIB, 7 * 65536 + 1536]
    source, destination = lab.pair(lanes=3)
    for disk, size in enumerate(sizes):
        with open(lab.path(f'a{disk}'), 'wb') as file:
            file.write(os.urandom(size // 2))
            file.truncate(size - 512)
            file.seek(size - 512)
            file.write(b'the end.' * 64)
        with open(lab.path(f'b{disk}'), 'wb') as file:
            file.truncate(size)
        disk_pair(lab, source, destination, disk, size, lab.qemu_nbd(lab.path(f'b{disk}'), 'raw', f'disk{disk}'))
    servers = [lab.qemu_nbd(lab.path(f'a{disk}'), 'raw', f'e{disk}', '-r') for disk in range(3)]
    for disk, server in enumerate(servers):
        source.order(PASS, lab.connect(server), disk=disk, number=0, export_name=b'e%d' % disk)
    done = sorted(source.wait(PASS_DONE).passing.disk for _ in sizes)
    equal(done, [0, 1, 2], 'the disks done')
    quiesce(destination)
    lab.stop_servers()
    for disk in range(3):
        run('cmp', lab.path(f'a{disk}'), lab.path(f'b{disk}'))


@test
def zeroes_overwrite_a_destination_that_is_not_blank(lab):
    a, b = lab.path('a.qcow2'), lab.path('b')
    make_source_image(a, '1G')
    with open(b, 'wb') as file:
        file.truncate(1 << 30)
        for offset in (0, 150 * MIB, 205 * MIB, 301 * MIB, (1 << 30) - MIB):
            file.seek(offset)
            file.write(b'stale' * 1000)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, 1 << 30, lab.qemu_nbd(b, 'raw', 'disk0'), reads_as_zero=False)
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'qcow2', 'live', '-r'), b'live')
    quiesce(destination)
    lab.stop_servers()
    run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', a, b)


@test
def memory_arrives_byte_for_byte(lab):
    stream = qemu_stream(75000, 3 * MIB)
    source, destination, _, drain = carry_memory(lab, stream)
    begun = time.monotonic()
    memory_arrives(source, destination, drain, stream)
    seconds = time.monotonic() - begun
    for mover in (source, destination):
        sample = mover.sample
        equal((sample.pages, sample.zero_pages, sample.page_bytes), (75000, 25000, 50000 * 4096), 'the pages counted')
        equal(sample.stream_phase, 2, 'the phase')
        if not sample.stream_wire_bytes < len(stream) * 0.62:
            raise Failed(f'{sample.stream_wire_bytes} bytes on the wire')
    equal(source.sample.stream_acknowledged, len(stream), 'stream_acknowledged')
    if not 0 < source.sample.wire_sent - source.sample.stream_wire_bytes < 0.01 * len(stream):
        raise Failed(f'wire_sent {source.sample.wire_sent}, frames {source.sample.stream_wire_bytes}')
    print(f'  {len(stream) >> 20} MiB in {seconds:.2f} s, resident {source.most_resident >> 20} and '
          f'{destination.most_resident >> 20} MiB')
    if not lab.sanitized and max(source.most_resident, destination.most_resident) > 100 * MIB:
        raise Failed('a mover has more than 100 MiB')


@test
def pages_sent_again_unchanged_are_left_out(lab):
    stream, lean, left_out = qemu_rounds(6000, 5, MIB)
    source, destination, _, drain = carry_memory(lab, stream)
    memory_arrives(source, destination, drain, lean)
    sample = source.sample
    equal((sample.pages, sample.zero_pages, sample.same_pages), (30000, 10000, left_out), 'the pages counted')
    equal(sample.stream_bytes, len(lean), 'stream_bytes')
    equal(destination.sample.pages, 30000 - left_out, 'the pages that arrived')


@test
def pages_that_changed_a_little_go_as_differences(lab):
    stream, lean, _ = qemu_rounds(6000, 5, MIB, few_words=True)
    source, destination, _, drain = carry_memory(lab, stream)
    memory_arrives(source, destination, drain, lean)
    # The first time it is new, the second time it is put into the cache.
    equal(source.sample.delta_pages, 2000 * 3, 'delta_pages')
    # Twice 8 MiB of noise, the tail, and little else.
    if not source.sample.stream_wire_bytes < 19 * MIB:
        raise Failed(f'{source.sample.stream_wire_bytes} bytes on the wire')


@test
def a_small_page_cache_serves_some_of_the_pages(lab):
    stream, lean, _ = qemu_rounds(6000, 5, MIB, few_words=True)
    for memory, cache, wanted in ((64 * MIB, 500 * 4096 + 4095, 500 * 3), (64 * MIB, 0, 0), (6000 * 20 + 300 * 4112, 16 * MIB, 300 * 3)):
        source, destination, _, drain = carry_memory(lab, stream, page_memory=memory, page_cache=cache)
        memory_arrives(source, destination, drain, lean)
        equal(source.sample.delta_pages, wanted, f'delta_pages with {memory} and {cache} bytes')


@test
def without_memory_for_pages_the_stream_goes_as_it_is(lab):
    stream, _, _ = qemu_rounds(3000, 3, MIB)
    source, destination, _, drain = carry_memory(lab, stream, page_memory=0)
    memory_arrives(source, destination, drain, stream)
    equal((source.sample.same_pages, source.sample.delta_pages), (0, 0), 'same_pages and delta_pages')


@test
def raw_lanes_and_a_stream_of_whole_checkpoints(lab):
    stream = os.urandom(128 * MIB)  # no QEMU stream: carried as opaque; a checkpoint is its end
    source, destination, _, drain = carry_memory(lab, stream, lanes=1, level=LEVEL_OFF)
    memory_arrives(source, destination, drain, stream)
    equal(source.sample.stream_phase, 3, 'the phase')


@test
def memory_and_disk_share_the_lanes(lab):
    stream = qemu_stream(20000, MIB)
    a, b = lab.path('a'), lab.path('b')
    with open(a, 'wb') as file:
        file.write(os.urandom(80 * MIB))
    with open(b, 'wb') as file:
        file.truncate(80 * MIB)
    source, destination, _, drain = carry_memory(lab, stream)
    source.order(LEFT, bytes=len(stream))
    disk_pair(lab, source, destination, 0, 80 * MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'raw', 'live', '-r'), b'live')
    memory_arrives(source, destination, drain, stream)
    quiesce(destination)
    lab.stop_servers()
    run('cmp', a, b)


@test
def segments_wait_for_the_memory_order(lab):
    stream = qemu_stream(1000, MIB)
    source, destination = lab.pair()
    qemu_out, fd_out = lab.stream_pair()
    source.order(MEMORY, fd_out)
    Feeder(qemu_out, stream)
    time.sleep(0.3)
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    memory_arrives(source, destination, Drain(qemu_in), stream)


@test
def hold_stops_the_stream_and_go_continues(lab):
    stream = qemu_stream(30000, MIB)
    source, destination = lab.pair()
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    source.order(HOLD, pages=9000)
    source.order(MEMORY, fd_out)
    feeder, drain = Feeder(qemu_out, stream), Drain(qemu_in)
    held = source.wait(HELD).memory.bytes
    if not 9000 <= held < 9100:
        raise Failed(f'held at {held} pages instead of 9000')
    time.sleep(0.5)
    source.receive(0.3)
    sent = source.sample.stream_bytes
    equal(len(drain.data), sent, 'what had been read and arrived while held')
    if feeder.sent > sent + MIB:
        raise Failed('the stream was read on while held')
    source.order(GO)
    memory_arrives(source, destination, drain, stream)


@test
def go_takes_a_hold_back(lab):
    stream = qemu_stream(3000, MIB)
    source, destination = lab.pair()
    source.order(HOLD, pages=100)
    source.order(GO)
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    source.order(MEMORY, fd_out)
    Feeder(qemu_out, stream)
    memory_arrives(source, destination, Drain(qemu_in), stream)


@test
def in_the_pause_nothing_holds_the_stream_back(lab):
    stream = qemu_stream(6000, MIB)
    source, destination = lab.pair()
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    source.order(MEMORY, fd_out)
    Feeder(qemu_out, stream)
    source.settle(0.5)
    # Nothing is acknowledged: the destination's QEMU is not there yet.
    if not MIB <= source.sample.stream_bytes < 2 * MIB:
        raise Failed(f'{source.sample.stream_bytes} bytes were read ahead')
    source.order(GO, last=True)
    mover_resume.until(source, 'all of the stream', lambda sample: sample.stream_bytes == len(stream))
    destination.order(MEMORY, fd_in)
    memory_arrives(source, destination, Drain(qemu_in), stream)


@test
def hold_last_keeps_the_last_segment(lab):
    for size in (1000000, 4 * SEGMENT_BYTES):
        stream = os.urandom(size)
        source, destination, _, drain = carry_memory(lab, stream, flags=HOLD_LAST)
        source.wait(LAST_HELD)
        time.sleep(0.2)
        equal(len(drain.data), (size - 1) // SEGMENT_BYTES * SEGMENT_BYTES, 'what arrived before GO')
        source.order(GO)
        memory_arrives(source, destination, drain, stream)


@test
def a_slow_lane_holds_up_the_stream_not_the_memory(lab):
    stream = os.urandom(24 * MIB)
    source, destination, feeder, drain = carry_memory(
        lab, stream, lanes=1, between=lambda a, b: Proxy(a, b, rate=8 * MIB))
    time.sleep(1.5)
    ahead = feeder.sent - len(drain.data)
    if ahead > 4 * MIB:
        raise Failed(f'{ahead} bytes are on their way')
    memory_arrives(source, destination, drain, stream)


@test
def a_flipped_bit_ends_the_lane(lab):
    stream = os.urandom(40 * MIB)
    source, destination, _, _ = carry_memory(
        lab, stream, between=lambda a, b: Proxy(a, b, flip_after=2 * MIB))
    lost = destination.wait(LANE_LOST).lane
    equal(lost.index, 0, 'the lane lost')
    if not lost.text:
        raise Failed('LANE_LOST without a reason')
    source.wait(LANE_LOST)
    # That the mover lives on, mover_resume.py tells.
    equal(source.close(), 0, "the source's exit status")
    equal(destination.close(), 0, "the destination's exit status")


@test
def a_wrong_key_ends_the_lane(lab):
    source, destination = lab.mover('source', SOURCE, 1), lab.mover('destination', DESTINATION, 1)
    a, b = tcp_pair()
    ticket = os.urandom(16)
    destination.order(LANE, b.detach(), index=0, ticket=ticket, key=os.urandom(32))
    source.order(LANE, a.detach(), index=0, ticket=ticket, key=os.urandom(32))
    destination.wait(LANE_LOST)
    source.wait(LANE_LOST)


@test
def a_side_without_aes_instructions_gets_chacha20(lab):
    slow = {'OPENSSL_ia32cap': '~0x200000200000000', 'OPENSSL_armcap': '0x1'}
    with open('/proc/cpuinfo', encoding='ascii') as file:
        if 'aes' not in file.read().split():
            slow = {}  # all of them are slow here
    for number, (source_has, destination_has) in enumerate(((True, True), (False, True), (True, False), (False, False))):
        source = lab.mover(f'source{number}', SOURCE, 1, environment=None if source_has else slow)
        destination = lab.mover(f'destination{number}', DESTINATION, 1, environment=None if destination_has else slow)
        link = mover_lab.Link(source, destination, 1)
        ciphers = {mover.wait(LANE_UP).lane.text.decode() for mover in (source, destination)}
        link.close()
        fast = slow and source_has and destination_has
        wanted = 'TLS_AES_128_GCM_SHA256' if fast else 'TLS_CHACHA20_POLY1305_SHA256'
        equal(ciphers, {wanted}, 'the cipher of both')


@test
def both_end_at_once_with_their_daemons(lab):
    stream = os.urandom(64 * MIB)
    source, destination, _, _ = carry_memory(lab, stream)
    time.sleep(0.05)
    for mover in (source, destination):
        begun = time.monotonic()
        equal(mover.close(), 0, 'the exit status')
        if time.monotonic() - begun > 2:
            raise Failed('it took its time')


@test
def a_full_destination_is_no_space(lab):
    a = lab.path('a')
    with open(a, 'wb') as file:
        file.write(os.urandom(8 * MIB))
    source, destination = lab.pair()
    target = lab.serve('nbdkit', '-f', '-U', '{socket}', '--filter=error', 'memory', str(8 * MIB), 'error=ENOSPC',
                       'error-pwrite-rate=100%')
    disk_pair(lab, source, destination, 0, 8 * MIB, target)
    source.order(PASS, lab.connect(lab.qemu_nbd(a, 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    fails(source, 'no-space', 'disk 0, pass 0: the destination could not write at offset')
    fails(destination, 'lane', 'No space left')


@test
def a_destination_that_dies_is_a_disk_write_failure(lab):
    source, destination = lab.pair()
    target = lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(8 * MIB))
    disk_pair(lab, source, destination, 0, 8 * MIB, target)
    destination.receive(0.3)
    lab.servers[0].kill()
    fails(destination, 'disk-write', 'disk 0')


@test
def an_unreadable_source_is_a_disk_read_failure(lab):
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, 8 * MIB, lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(8 * MIB)))
    server = lab.serve('nbdkit', '-f', '-U', '{socket}', '--filter=error', '--filter=noextents', 'memory', str(8 * MIB),
                       'error=EIO', 'error-pread-rate=100%')
    source.order(PASS, lab.connect(server), disk=0, number=0, export_name=b'')
    fails(source, 'disk-read', 'disk 0, pass 0')


@test
def a_source_disk_of_another_size_is_refused(lab):
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, 8 * MIB, lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(8 * MIB)))
    server = lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(9 * MIB))
    source.order(PASS, lab.connect(server), disk=0, number=0, export_name=b'')
    fails(source, 'disk-read', 'the export has 9437184 bytes, the disk 8388608')


@test
def a_released_export_may_vanish(lab):
    a, b = lab.path('a'), lab.path('b')
    for path in (a, b):
        with open(path, 'wb') as file:
            file.truncate(MIB)
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, MIB, lab.qemu_nbd(b, 'raw', 'disk0'))
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'raw', 'live', '-r'), b'live')
    lab.servers[1].kill()
    time.sleep(0.2)
    source.order(RELEASE, disk=0, number=0)
    quiesce(destination)
    lab.servers[0].kill()
    time.sleep(0.2)
    equal(source.receive(0.2), None, 'a report after RELEASE')
    equal(destination.receive(0.2), None, 'a report after QUIESCED')
    equal(source.close(), 0, "the source's exit status")
    equal(destination.close(), 0, "the destination's exit status")


@test
def orders_that_make_no_sense_end_it(lab):
    cases = [
        ('not of the size', lambda mover: mover.send_raw(b'short')),
        ('came twice', lambda mover: mover.order(mover_lab.BEGIN, role=SOURCE, lanes=1)),
        ('no descriptor', lambda mover: mover.order(MEMORY)),
        ('a descriptor came', lambda mover: mover.order(GO, os.open('/dev/null', os.O_RDONLY))),
        ('no such lane', lambda mover: mover.order(LANE, os.open('/dev/null', os.O_RDONLY), index=2)),
        ('not for this role', lambda mover: mover.order(QUIESCE)),
        ('out of range', lambda mover: mover.order(DISK, disk=64, size=512)),
        ('not a multiple', lambda mover: mover.order(DISK, disk=0, size=513)),
        ('no DISK order', lambda mover: mover.order(PASS, os.open('/dev/null', os.O_RDONLY), disk=0, export_name=b'x')),
        ('there is none', lambda mover: mover.order(RELEASE, disk=0, number=0)),
        ('unknown type', lambda mover: mover.order(77)),
    ]
    for number, (part, say) in enumerate(cases):
        mover = lab.mover(f'source{number}', SOURCE)
        say(mover)
        fails(mover, 'orders', part)


def extent(request=1, offset=0, length=4096, disk=0, kind=0, codec=0, hash_value=0, payload=b''):
    return struct.pack('>QQQIHBB', request, offset, hash_value, length, disk, kind, codec) + payload


def segment(sequence=0, offset=0, length=4096, codec=0, operations=0, payload=b'x' * 4096):
    return struct.pack('>QQIBxH', sequence, offset, length, codec, operations) + payload


def one_page(*operation):
    """A segment of 4100 bytes of the stream with one operation: kind, offset, slot."""
    data = b'x' * 4100 + struct.pack('>BII', *operation)
    return segment(length=len(data), operations=1, payload=data)


class Hash(ctypes.Structure):
    _fields_ = [('low', ctypes.c_uint64), ('high', ctypes.c_uint64)]


def end_of(stream, sequence=1):
    """The END frame after STREAM, with its hash."""
    library = ctypes.CDLL('libxxhash.so.0')
    library.XXH3_128bits.restype = Hash
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    value = library.XXH3_128bits(stream, len(stream))
    return END, struct.pack('>QQQQ', sequence, len(stream), value.high, value.low)


@test
def repetitions_in_the_stream_are_not_believed_twice(lab):
    destination = lab.mover('destination', DESTINATION, 1)
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    drain = Drain(qemu_in)
    liar = lying_peer(destination)
    stream = b'x' * 4096 + b'y' * 4096
    liar.send(SEGMENT, segment(1, 4096, payload=b'y' * 4096))
    liar.send(SEGMENT, segment(1, 4096, payload=b'z' * 4096))
    liar.send(SEGMENT, segment())
    liar.send(SEGMENT, segment(payload=b'z' * 4096))
    liar.send(*end_of(stream, 2))
    done = destination.wait(MEMORY_DONE).memory
    equal(done.bytes, len(stream), 'the bytes of the stream')
    equal(bytes(drain.wait()), stream, 'the stream')
    liar.send(*end_of(stream, 2))
    liar.send(SEGMENT, segment())
    equal(destination.receive(0.3), None, 'a report after MEMORY_DONE')


@test
def a_lying_source_is_refused(lab):
    zstd = subprocess.run(['zstd', '-q', '-c', '--stream-size=100000'], input=b'\0' * 100000, stdout=subprocess.PIPE, check=True).stdout
    cases = [
        ('protocol', 'which has only', [(EXTENT, extent(offset=8 * MIB, kind=1))]),
        ('protocol', 'which has only', [(EXTENT, extent(offset=2**62, kind=1))]),
        ('protocol', 'outside its range', [(EXTENT, extent(offset=2**64 - 512, kind=1))]),
        ('protocol', 'which is not there', [(EXTENT, extent(disk=1, kind=1))]),
        ('protocol', 'which is not there', [(FLUSH, struct.pack('>QH6x', 1, 65535))]),
        ('protocol', 'too short', [(EXTENT, extent(payload=b'x' * 4095))]),
        ('protocol', 'not as long as it says', [(EXTENT, extent(length=MIB, codec=1, payload=zstd))]),
        ('hash', 'not those that left the source', [(EXTENT, extent(payload=b'x' * 4096))]),
        ('protocol', 'damaged', [(SEGMENT, segment(length=100000, codec=1, payload=zstd[:-3] + b'\xff\xff\xff'))]),
        ('protocol', 'slot that is not there', [(SEGMENT, one_page(1, 0, 4096))]),
        ('protocol', 'bytes that are not there', [(SEGMENT, one_page(2, 5, 0))]),
        ('protocol', 'bytes that are not there', [(SEGMENT, one_page(2, 2**32 - 1, 0))]),
        ('protocol', 'unknown kind', [(SEGMENT, one_page(3, 0, 0))]),
        ('protocol', 'outside its range', [(SEGMENT, segment(length=9, operations=1, payload=b'x' * 9))]),
        ('protocol', 'beyond the window', [(SEGMENT, segment(sequence=256))]),
        ('protocol', 'behind the stream', [(SEGMENT, segment()), end_of(b'x' * 4096),
                                           (SEGMENT, segment(sequence=2, offset=4096))]),
        ('protocol', 'behind the stream', [(SEGMENT, segment(sequence=2, offset=4096)), end_of(b'x' * 4096),
                                           (SEGMENT, segment())]),
        ('protocol', 'is the next', [(SEGMENT, segment(offset=4096))]),
        ('hash', 'differs', [(SEGMENT, segment()), (END, struct.pack('>QQ16x', 1, 4096))]),
        ('protocol', 'not for this side', [(34, struct.pack('>QI4x', 1, 0))]),
        ('protocol', 'unknown', [(99, b'')]),
        ('protocol', 'frame of type 16', [(SEGMENT, b'', 2**32 - 1)]),
        ('lane', 'gave up: had ?enough', [(FAIL, b'had \x07enough')]),
    ]
    for number, (identifier, part, frames) in enumerate(cases):
        destination = lab.mover(f'destination{number}', DESTINATION, 1)
        target = lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(8 * MIB))
        destination.order(DISK, lab.connect(target), disk=0, size=8 * MIB)
        qemu_in, fd_in = lab.stream_pair()
        destination.order(MEMORY, fd_in)
        liar = lying_peer(destination)
        for frame in frames:
            liar.send(*frame)
        fails(destination, identifier, part)
        if identifier != 'lane':
            kind, _ = liar.receive()
            while kind != FAIL:
                kind, _ = liar.receive()


@test
def writes_after_quiesce_are_refused(lab):
    source, destination = lab.pair()
    disk_pair(lab, source, destination, 0, MIB, lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(MIB)))
    quiesce(destination)
    server = lab.serve('nbdkit', '-f', '-U', '{socket}', 'data', 'size=1M', 'data=@0x1000 1 2 3')
    source.order(PASS, lab.connect(server), disk=0, number=0, export_name=b'')
    fails(destination, 'protocol', 'after the disks were closed')


sys.exit(run_all(__doc__))
