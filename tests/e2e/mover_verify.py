"""What two movers do with --verify: both read their disks back, and the source tells where they differ. Run by test_mover.py."""
import ctypes
import os
import random
import socket
import struct
import time

from mover_checks import (MIB, contains, copy, disk_pair, equal, fails, lying_peer, make_source_image, quiesce, test)
from mover_lab import (DISK, PASS, PASS_DONE, READS_GO, READS_HELD, READS_HOLD, RELEASE, RESUME, RESUMED, VERIFIED, VERIFIES,
                       VERIFY, DESTINATION, SOURCE, Failed, Proxy, run)

FRAME_VERIFY, FRAME_DIGEST = 35, 36
PIECE = 64 << 10


def compared(source, timeout=60):
    """Waits until the source has gone through all its disks."""
    end = time.monotonic() + timeout
    while source.sample is None or source.sample.never_compared:
        if time.monotonic() > end:
            raise Failed(f'{source.name}: still compares after {timeout} s')
        source.settle(0.05)


def verdict(source):
    """Orders VERIFY: (different bytes, [(disk, offset, length)], more)."""
    source.order(VERIFY)
    found = source.wait(VERIFIED, 60).verified
    return found.different_bytes, [(run.disk, run.offset, run.length) for run in found.runs[:found.count]], found.more


def behind_its_back(path, export, *commands):
    """Writes to what an NBD server exports, as no mover did."""
    words = [word for command in commands for word in ('-c', command)]
    run('qemu-io', '-f', 'raw', *words, '-c', 'flush', f'nbd+unix:///{export}?socket={path}')


def raw_file(path, size, *pieces):
    with open(path, 'wb') as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


def sparse_pair(lab, size, **options):
    """Movers with one disk of SIZE: 2 MiB of noise at 1 MiB, the rest holes. Returns (source, destination, target's socket, the
    live export's socket)."""
    raw_file(lab.path('a'), size, (MIB, os.urandom(2 * MIB)))
    raw_file(lab.path('b'), size)
    target = lab.qemu_nbd(lab.path('b'), 'raw', 'disk0')
    source, destination = lab.pair(flags=VERIFIES, **options)
    disk_pair(lab, source, destination, 0, size, target)
    return source, destination, target, lab.qemu_nbd(lab.path('a'), 'raw', 'live', '-r')


@test
def equal_disks_of_odd_sizes_are_found_equal(lab):
    sizes = [40 * MIB + 512, 7 * 65536 + 1536, 1 << 30]
    source, destination = lab.pair(lanes=3, flags=VERIFIES)
    for disk, size in enumerate(sizes[:2]):
        raw_file(lab.path(f'a{disk}'), size, (0, os.urandom(size // 3)), (size - 512, b'the end.' * 64))
    make_source_image(lab.path('a2'))
    formats = ['raw', 'raw', 'qcow2']
    for disk, size in enumerate(sizes):
        run('qemu-img', 'create', '-q', '-f', formats[disk], lab.path(f'b{disk}'), str(size))
        target = lab.qemu_nbd(lab.path(f'b{disk}'), formats[disk], f'disk{disk}')
        disk_pair(lab, source, destination, disk, size, target)
    for disk in range(3):
        server = lab.qemu_nbd(lab.path(f'a{disk}'), formats[disk], 'live', '-r')
        source.order(PASS, lab.connect(server), disk=disk, number=0, export_name=b'live')
    for _ in sizes:
        source.wait(PASS_DONE)
    compared(source)
    equal(verdict(source), (0, [], False), 'the differences')
    equal(source.sample.uncompared_bytes, 0, 'what is left to be compared')
    equal(source.sample.compared_bytes, sum(sizes), 'what was compared')
    for disk in range(3):
        source.order(RELEASE, disk=disk, number=0)
    quiesce(destination)
    equal(source.close(), 0, "the source's exit status")


@test
def differences_are_told_by_offset(lab):
    size = (1 << 30) + 512
    source, _, target, server = sparse_pair(lab, size)
    # In holes of the source, which are not sent: in one block, over the bounds of blocks and of what is read at once, at the end.
    behind_its_back(target, 'disk0', 'write -P 1 20500 512', f'write -P 2 {256 * MIB - 512} 1024', f'write -P 3 {size - 512} 512')
    copy(lab, source, 0, 0, server, b'live')
    compared(source)
    wanted = [(0, 20480, 4096), (0, 256 * MIB - 4096, 8192), (0, 1 << 30, 512)]
    equal(verdict(source), (4096 + 8192 + 512, wanted, False), 'the differences')


@test
def a_disk_that_differs_everywhere_is_told_soon(lab):
    size = 256 * MIB
    source, _, target, server = sparse_pair(lab, size)
    behind_its_back(target, 'disk0', f'write -P 1 {4 * MIB} {size - 4 * MIB}')
    copy(lab, source, 0, 0, server, b'live')
    compared(source)
    different, runs, more = verdict(source)
    equal(more, True, 'whether there is more')
    if not 0 < different < size - 4 * MIB or not all(4 * MIB <= offset < size for _, offset, _ in runs):
        raise Failed(f'{different} bytes are said to differ, at {runs}')


@test
def what_is_sent_again_is_compared_again(lab):
    a, b = lab.path('a.qcow2'), lab.path('b.qcow2')
    make_source_image(a)
    run('qemu-img', 'bitmap', '--add', '-g', '4096', a, 'w0')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', b, '1G')
    target = lab.qemu_nbd(b, 'qcow2', 'disk0')
    source, destination = lab.pair(flags=VERIFIES)
    disk_pair(lab, source, destination, 0, 1 << 30, target)
    copy(lab, source, 0, 0, lab.qemu_nbd(a, 'qcow2', 'live', '-r'), b'live')
    compared(source)
    behind_its_back(target, 'disk0', f'write -P 9 {5 * MIB + 8192} 4k', f'write -P 9 {20 * MIB} 4k')
    # Plays the guest. Its cluster is there already, so that the export of the bulk pass goes on seeing what there is.
    run('qemu-io', '--image-opts', f'driver=qcow2,file.driver=file,file.locking=off,file.filename={a}', '-c', 'write -P 0x33 5M 4k')
    dirty = lab.qemu_nbd(a, 'qcow2', 'live', '-r', '-B', 'w0')
    done = copy(lab, source, 0, 1, dirty, b'live', b'qemu:dirty-bitmap:w0')
    equal(done.data_bytes, 4096, 'data_bytes of the dirty pass')
    # What was found equal and not sent since is not looked at again: the change at 20 MiB is not seen.
    equal(verdict(source), (4096, [(0, 5 * MIB + 8192, 4096)], False), 'the differences')


@test
def a_lost_link_does_not_end_it(lab):
    size = 24 * MIB
    raw_file(lab.path('a'), size, (0, os.urandom(size)))
    target = lab.serve('nbdkit', '-f', '-U', '{socket}', '--filter=delay', 'memory', str(size), 'delay-read=40ms')
    source, destination = lab.pair(flags=VERIFIES)
    disk_pair(lab, source, destination, 0, size, target)
    copy(lab, source, 0, 0, lab.qemu_nbd(lab.path('a'), 'raw', 'live', '-r'), b'live')
    for _ in range(2):
        source.settle(0.2)
        equal(source.sample.never_compared, True, 'whether there is more to be compared')
        lab.link.cut()
        for mover in (destination, source):
            mover.order(RESUME)
            mover.wait(RESUMED)
            mover.kept.clear()
        lab.connect_lanes(source, destination)
    equal(verdict(source), (0, [], False), 'the differences')
    equal(source.sample.compared_bytes >= size, True, 'whether all was compared')


@test
def orders_to_verify_come_in_their_place(lab):
    def pair(name, flags):
        mover = lab.mover(name, SOURCE, 1, flags=flags)
        mover.order(DISK, disk=0, size=MIB, reads_as_zero=True)
        return mover

    cases = [(0, 'BEGIN did not say', [VERIFY]), (VERIFIES, 'the bulk pass of disk 0 is not over', [VERIFY])]
    for number, (flags, part, orders) in enumerate(cases):
        mover = pair(f'source{number}', flags)
        for order in orders:
            mover.order(order)
        fails(mover, 'orders', part)
    source, _, _, server = sparse_pair(lab, 8 * MIB)
    copy(lab, source, 0, 0, server, b'live')
    source.order(RELEASE, disk=0, number=0)
    fails(source, 'orders', 'not verified yet')


class Hash(ctypes.Structure):
    _fields_ = [('low', ctypes.c_uint64), ('high', ctypes.c_uint64)]


def xxh3_128(data):
    library = ctypes.CDLL('libxxhash.so.0')
    library.XXH3_128bits.restype = Hash
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    value = library.XXH3_128bits(data, len(data))
    return struct.pack('>QQ', value.high, value.low)


def digest_of(disk, offset, length):
    """As protocol/SPEC.md has it."""
    digest, at, end = bytes(16), offset, offset + length
    while at < end:
        stop = min(at // PIECE * PIECE + PIECE, end)
        piece = bytes(disk[at:stop])
        if any(piece):
            digest = xxh3_128(digest + struct.pack('>Q', at) + xxh3_128(piece))
        at = stop
    return digest


def question(request, offset, length, disk=0):
    return struct.pack('>QQIH2x', request, offset, length, disk)


@test
def a_digest_is_what_the_protocol_says(lab):
    size = 3 * MIB + 512
    content = bytearray(size)
    content[MIB - 700:MIB + 200000] = random.Random(3).randbytes(200700)
    content[-3:] = b'end'
    raw_file(lab.path('b'), size, (MIB - 700, content[MIB - 700:MIB + 200000]), (size - 3, b'end'))
    destination = lab.mover('destination', DESTINATION, 1)
    destination.order(DISK, lab.connect(lab.qemu_nbd(lab.path('b'), 'raw', 'disk0')), disk=0, size=size)
    liar = lying_peer(destination)
    runs = [(0, size), (0, 512), (MIB - 1024, 1536), (MIB, 65536), (MIB + 4096, 4096), (size - 512, 512), (2 * MIB, 65536)]
    for request, (offset, length) in enumerate(runs):
        liar.send(FRAME_VERIFY, question(request, offset, length))
        kind, body = liar.receive()
        equal(kind, FRAME_DIGEST, 'the type of the answer')
        equal(body, struct.pack('>QQ', request, 0) + digest_of(content, offset, length), f'the digest of {length} at {offset}')


@test
def questions_beyond_a_disk_are_refused(lab):
    cases = [('asked about 1024 bytes for offset', question(1, MIB - 512, 1024)), ('which is not there', question(1, 0, 512, 7)),
             ('frame of type 35', question(1, 0, 0)), ('frame of type 35', question(1, 0, (16 << 20) + 1))]
    for number, (part, body) in enumerate(cases):
        destination = lab.mover(f'destination{number}', DESTINATION, 1)
        target = lab.serve('nbdkit', '-f', '-U', '{socket}', 'memory', str(MIB))
        destination.order(DISK, lab.connect(target), disk=0, size=MIB)
        lying_peer(destination).send(FRAME_VERIFY, body)
        fails(destination, 'protocol', part)


@test
def a_disk_that_cannot_be_read_back_is_named(lab):
    size = 2 * MIB
    raw_file(lab.path('a'), size, (0, os.urandom(size)))
    source, destination = lab.pair(flags=VERIFIES)
    target = lab.serve('nbdkit', '-f', '-U', '{socket}', '--filter=error', 'memory', str(size), 'error-pread=EIO', 'error-pread-rate=100%')
    disk_pair(lab, source, destination, 0, size, target)
    source.order(PASS, lab.connect(lab.qemu_nbd(lab.path('a'), 'raw', 'live', '-r')), disk=0, number=0, export_name=b'live')
    identifier, text = source.failure()
    equal(identifier, 'disk-read', f'the id of FAILED ({text})')
    contains(text, 'the destination could not read back')
    contains(text, 'Input/output error')


@test
def what_holds_its_reads_begins_no_nbd_command(lab):
    """Passes and comparisons under way, and a pass ordered meanwhile: until READS_GO not a byte goes to the NBD servers."""
    size = 32 * MIB
    source, destination = lab.pair(flags=VERIFIES)
    proxies = []
    for disk in range(3):
        raw_file(lab.path(f'a{disk}'), size, (0, os.urandom(size)))
        raw_file(lab.path(f'b{disk}'), size)
        disk_pair(lab, source, destination, disk, size, lab.qemu_nbd(lab.path(f'b{disk}'), 'raw', f'disk{disk}'))

    def order_pass(disk):
        ours, theirs = socket.socketpair()
        server = socket.socket(fileno=lab.connect(lab.qemu_nbd(lab.path(f'a{disk}'), 'raw', 'live', '-r')))
        proxies.append((Proxy(ours, server), ours))
        source.order(PASS, theirs.detach(), disk=disk, number=0, export_name=b'live')

    def asked():
        return [proxy.carried[client] for proxy, client in proxies]

    order_pass(0)
    source.wait(PASS_DONE)
    order_pass(1)
    holds = 0
    while source.count(PASS_DONE) == 0 or holds < 3:
        source.order(READS_HOLD)
        source.wait(READS_HELD)
        if holds == 2:
            order_pass(2)
            source.settle(0.5)  # it is negotiated
        before = asked()
        source.settle(0.2)
        equal(asked(), before, f'bytes of commands in hold {holds}')
        source.order(READS_GO)
        source.settle(0.02)
        holds += 1
    for _ in range(2):
        source.wait(PASS_DONE)
    compared(source)
    equal(verdict(source), (0, [], False), 'the differences')
    for disk in range(3):
        source.order(RELEASE, disk=disk, number=0)
    quiesce(destination)
