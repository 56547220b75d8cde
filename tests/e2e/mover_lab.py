"""A laboratory for two watari-movers: the daemons' end of both, lanes over loopback TCP, NBD servers, a peer that lies.

Used by test_mover.py, mover_resume.py and mover_verify.py. The structs are those of agent/mover/orders.h, laid out by ctypes as the C
compiler does it."""
import array
import ctypes
import fcntl
import os
import pathlib
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from lab.qmp import Qmp  # noqa: E402  # the path comes first

MAX_DISKS = 64
MAX_DIFFERENCES = 8
LEVEL_OFF, LEVEL_AUTO = -2**31, 2**31 - 1
HOLD_LAST, VERIFIES = 1, 2
# The stream's bytes in a full segment: operations on its pages have room behind them.
SEGMENT_BYTES = (256 << 10) - 64 * 9
SOURCE, DESTINATION = 1, 2

(BEGIN, LANE, DISK, PASS, RELEASE, MEMORY, HOLD, GO, QUIESCE, RESUME, LEFT, VERIFY, READS_HOLD,
 READS_GO, LIMIT) = range(1, 16)
(LANE_UP, LANE_LOST, PASS_DONE, HELD, LAST_HELD, MEMORY_DONE, QUIESCED, RESUMED, SAMPLE, FAILED, VERIFIED,
 READS_HELD, MEMORY_SENT) = range(1, 14)
REPORT_NAMES = ['', 'LANE_UP', 'LANE_LOST', 'PASS_DONE', 'HELD', 'LAST_HELD', 'MEMORY_DONE', 'QUIESCED', 'RESUMED',
                'SAMPLE', 'FAILED', 'VERIFIED', 'READS_HELD', 'MEMORY_SENT']
# Not in Python's socket module.
SO_ATTACH_FILTER = 26

u8, u32, u64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64


class OrderBegin(ctypes.Structure):
    _fields_ = [('role', ctypes.c_int), ('lanes', u32), ('level', ctypes.c_int32), ('in_flight_ms', u32), ('patience_ms', u32),
                ('flags', u32), ('page_memory_bytes', u64), ('page_cache_bytes', u64), ('key_bytes', u64)]


class OrderLane(ctypes.Structure):
    _fields_ = [('index', u32), ('ticket', u8 * 16), ('key', u8 * 32)]


class OrderDisk(ctypes.Structure):
    _fields_ = [('disk', u32), ('size', u64), ('reads_as_zero', ctypes.c_bool)]


class OrderPass(ctypes.Structure):
    _fields_ = [('disk', u32), ('number', u32), ('start', u64), ('export_name', ctypes.c_char * 64), ('context', ctypes.c_char * 256)]


class OrderHold(ctypes.Structure):
    _fields_ = [('pages', u64)]


class OrderGo(ctypes.Structure):
    _fields_ = [('last', ctypes.c_bool)]


class OrderLeft(ctypes.Structure):
    _fields_ = [('bytes', u64)]


class OrderLimit(ctypes.Structure):
    _fields_ = [('rate', u64), ('paused_rate', u64)]


class OrderBody(ctypes.Union):
    _fields_ = [('begin', OrderBegin), ('lane', OrderLane), ('disk', OrderDisk), ('passing', OrderPass),
                ('hold', OrderHold), ('go', OrderGo), ('left', OrderLeft), ('limit', OrderLimit)]


class Order(ctypes.Structure):
    _fields_ = [('type', ctypes.c_int), ('body', OrderBody)]


class ReportLane(ctypes.Structure):
    _fields_ = [('index', u32), ('text', ctypes.c_char * 512)]


class ReportPass(ctypes.Structure):
    _fields_ = [('disk', u32), ('number', u32), ('data_bytes', u64), ('zero_bytes', u64), ('extents', u64),
                ('flush_ns', u64)]


class ReportMemory(ctypes.Structure):
    _fields_ = [('bytes', u64), ('hash', u8 * 16)]


class ReportSample(ctypes.Structure):
    _fields_ = [(name, u64) for name in (
        'wire_sent wire_received disk_bytes disk_acknowledged disk_zero_bytes disk_wire_bytes stream_bytes '
        'stream_acknowledged stream_wire_bytes stream_delay_us resent_bytes key_renewals pages zero_pages page_bytes same_pages '
        'delta_pages').split()] + [
            ('pass_left', u64 * MAX_DISKS), ('pass_reached', u64 * MAX_DISKS), ('compared_bytes', u64), ('reread_bytes', u64),
            ('comparing_us', u64), ('uncompared_bytes', u64), ('never_compared', ctypes.c_bool), ('stream_phase', u32),
            ('rss_bytes', u64)]


class Difference(ctypes.Structure):
    _fields_ = [('disk', u32), ('offset', u64), ('length', u64)]


class ReportVerified(ctypes.Structure):
    _fields_ = [('different_bytes', u64), ('count', u32), ('more', ctypes.c_bool), ('runs', Difference * MAX_DIFFERENCES)]


class ReportFailure(ctypes.Structure):
    _fields_ = [('id', ctypes.c_char * 32), ('text', ctypes.c_char * 512)]


class ReportBody(ctypes.Union):
    _fields_ = [('lane', ReportLane), ('passing', ReportPass), ('memory', ReportMemory), ('sample', ReportSample),
                ('failure', ReportFailure), ('verified', ReportVerified)]


class Report(ctypes.Structure):
    _fields_ = [('type', ctypes.c_int), ('body', ReportBody)]


class Failed(Exception):
    """A mover said FAILED (or LANE_LOST, or ended) where the test awaited something else."""


class Mover:
    """One mover process and the daemon's end of its socket."""

    def __init__(self, binary, directory, name, environment=None):
        self.name = name
        self.log_path = os.path.join(directory, name + '.log')
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        theirs.close()
        # A mover ends by _exit(), its threads with it, which TSan would take for a leak.
        options = f'{os.environ.get("TSAN_OPTIONS", "")} report_thread_leaks=0'.strip()
        self.pid = os.posix_spawn(binary, [binary], {**os.environ, **(environment or {}), 'TSAN_OPTIONS': options}, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, '/dev/null', os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, high, 3)])
        os.close(high)
        self.status = None
        self.sample = None
        self.samples = 0
        self.most_resident = 0
        self.kept = []  # reports that nobody has awaited yet
        self.may_lose_lanes = False

    def order(self, kind, fd=None, **fields):
        order = Order(type=kind)
        part = {BEGIN: order.body.begin, LANE: order.body.lane, DISK: order.body.disk, PASS: order.body.passing,
                RELEASE: order.body.passing, HOLD: order.body.hold, GO: order.body.go, LEFT: order.body.left, LIMIT: order.body.limit}.get(kind)
        for key, value in fields.items():
            if isinstance(value, bytes) and key in ('ticket', 'key'):
                value = (u8 * len(value))(*value)
            setattr(part, key, value)
        self.send_raw(bytes(order), fd)

    def send_raw(self, data, fd=None):
        control = []
        if fd is not None:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))]
        self.socket.sendmsg([data], control)
        if fd is not None:
            os.close(fd)

    def receive(self, timeout):
        """The next report that is not a SAMPLE; None when the mover has ended or the time is over."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return None
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            assert len(data) == ctypes.sizeof(Report), f'{self.name}: a report of {len(data)} bytes'
            report = Report.from_buffer_copy(data)
            if report.type != SAMPLE:
                return report
            self.take_sample(report.body.sample)
            self.most_resident = max(self.most_resident, self.sample.rss_bytes)

    def take_sample(self, sample):
        before = self.sample
        for name in ('wire_sent', 'wire_received', 'stream_wire_bytes', 'disk_wire_bytes', 'resent_bytes'):
            assert before is None or getattr(sample, name) >= getattr(before, name), f'{self.name}: {name} went back'
        self.sample = sample
        self.samples += 1
        self.most_resident = max(self.most_resident, sample.rss_bytes)

    def settle(self, seconds=0.25):
        """Receives for so long, so that the sample is of now; what comes besides is kept."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            report = self.receive(left)
            if report is not None:
                self.kept.append(report)

    def count(self, kind):
        """How many reports of KIND came that nobody has awaited."""
        return sum(report.type == kind for report in self.kept)

    def wait(self, kind, timeout=30):
        """Awaits one report of KIND; others but FAILED and an unexpected LANE_LOST are kept for later waits."""
        for report in self.kept:
            if report.type == kind:
                self.kept.remove(report)
                return report.body
        while True:
            report = self.receive(timeout)
            if report is None:
                raise Failed(f'{self.name}: no {REPORT_NAMES[kind]} ({self.log()})')
            if report.type == kind:
                return report.body
            if report.type == FAILED:
                failure = report.body.failure
                raise Failed(f'{self.name}: {failure.id.decode()}: {failure.text.decode()}')
            if report.type == LANE_LOST and kind != FAILED and not self.may_lose_lanes:
                raise Failed(f'{self.name}: lane {report.body.lane.index} lost: {report.body.lane.text.decode()}')
            self.kept.append(report)

    def failure(self, timeout=30):
        """Awaits FAILED: (id, text)."""
        failure = self.wait(FAILED, timeout).failure
        return failure.id.decode(), failure.text.decode()

    def log(self):
        with open(self.log_path, errors='replace') as file:
            return file.read().strip()

    def complaints(self):
        """What a sanitizer had to say."""
        return [line for line in self.log().splitlines() if 'Sanitizer' in line or 'runtime error' in line]

    def close(self, timeout=10):
        """Closes the daemon's end and returns the exit status."""
        self.socket.close()
        return self.wait_exit(timeout)

    def wait_exit(self, timeout=10):
        end = time.monotonic() + timeout
        while self.status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.005)
        return self.status

    def kill(self):
        if self.status is None:
            os.kill(self.pid, 9)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.socket.close()


def tcp_pair():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


class Link:
    """The lanes between two movers, until they are cut. BETWEEN(a, b) may put something between the ends of each of the
    first BETWEEN_LANES. PAIR makes both ends of a connection."""

    def __init__(self, source, destination, lanes, between=None, between_lanes=1, pair=tcp_pair):
        self.movers = (source, destination)
        self.ends = []  # [source's socket, destination's socket] of each lane: the movers have them too
        for index in range(lanes):
            if between is not None and index < between_lanes:
                a, middle_a = tcp_pair()
                middle_b, b = tcp_pair()
                between(middle_a, middle_b)
            else:
                a, b = pair()
            self.ends.append((a, b))
            secrets = dict(index=index, ticket=os.urandom(16), key=os.urandom(32))
            destination.order(LANE, os.dup(b.fileno()), **secrets)
            source.order(LANE, os.dup(a.fileno()), **secrets)

    def wait_up(self):
        for _ in self.ends:
            for mover in self.movers:
                mover.wait(LANE_UP)

    def silence(self, at_source=True, at_destination=True, lanes=None):
        """From now on nothing arrives at one side's end of the lanes (of these indexes; None: all), or at both's; nobody is
        told."""
        nothing = struct.pack('HBBI', 6, 0, 0, 0)  # BPF: return 0 bytes of each packet
        buffer = ctypes.create_string_buffer(nothing, len(nothing))
        program = struct.pack('HP', 1, ctypes.addressof(buffer))
        for index, pair in enumerate(self.ends):
            for end, wanted in zip(pair, (at_source, at_destination)):
                if wanted and (lanes is None or index in lanes):
                    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def cut(self, lanes=None):
        """Ends the lanes (of these indexes; None: all) at both sides, and what is on the way does not arrive."""
        for mover in self.movers:
            mover.may_lose_lanes = True
        self.silence(lanes=lanes)
        for index, pair in enumerate(self.ends):
            for end in pair:
                if lanes is None or index in lanes:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:  # it was reset
                        pass

    def close(self):
        for pair in self.ends:
            for end in pair:
                end.close()


class Proxy(threading.Thread):
    """Carries bytes between two sockets; flips one bit of what goes A to B after FLIP_AFTER bytes; or limits its rate."""

    def __init__(self, a, b, flip_after=None, rate=None):
        super().__init__(daemon=True)
        self.a, self.b, self.flip_after, self.rate = a, b, flip_after, rate
        self.carried = {a: 0, b: 0}  # bytes that came from it
        self.start()

    def run(self):
        for sock in (self.a, self.b):
            sock.setblocking(True)
        threading.Thread(target=self.carry, args=(self.b, self.a, None, None), daemon=True).start()
        self.carry(self.a, self.b, self.flip_after, self.rate)

    def carry(self, reader, writer, flip_after, rate):
        seen = 0
        try:
            while data := reader.recv(16384 if rate else 65536):
                if flip_after is not None and seen <= flip_after < seen + len(data):
                    data = bytearray(data)
                    data[flip_after - seen] ^= 0x10
                seen += len(data)
                self.carried[reader] = seen
                writer.sendall(data)
                if rate:
                    time.sleep(len(data) / rate)
        except OSError:
            pass
        for sock, how in ((writer, socket.SHUT_WR), (reader, socket.SHUT_RD)):
            try:
                sock.shutdown(how)
            except OSError:
                pass


class Lab:
    """A scratch directory, and everything begun in it ends with it."""

    def __init__(self, binary):
        self.binary = binary
        # Its own memory would be counted as the mover's.
        with open(binary, 'rb') as file:
            program = file.read()
        self.sanitized = b'__asan_init' in program or b'__tsan_init' in program
        self.tcp_pair = tcp_pair
        self.directory = tempfile.mkdtemp(prefix='watari-mover-test-')
        self.servers = []
        self.movers = []
        self.sockets = []
        self.link = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for mover in self.movers:
            mover.kill()
        for server in self.servers:
            if server.poll() is None:
                server.kill()
            server.wait()
        for sock in self.sockets:
            sock.close()
        if self.link is not None:
            self.link.close()
        shutil.rmtree(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def mover(self, name, role, lanes=2, level=LEVEL_AUTO, flags=0, in_flight_ms=30, environment=None,
              page_memory=64 << 20, page_cache=16 << 20, key_bytes=256 << 30):
        mover = Mover(self.binary, self.directory, name, environment)
        self.movers.append(mover)
        mover.order(BEGIN, role=role, lanes=lanes, level=level, flags=flags, in_flight_ms=in_flight_ms, patience_ms=5000,
                    page_memory_bytes=page_memory, page_cache_bytes=page_cache, key_bytes=key_bytes)
        return mover

    def pair(self, lanes=2, level=LEVEL_AUTO, flags=0, between=None, between_lanes=1, **more):
        """Two movers with their lanes up. BETWEEN: see Link; MORE: see mover()."""
        source = self.mover('source', SOURCE, lanes, level, flags, **more)
        destination = self.mover('destination', DESTINATION, lanes, **more)
        self.connect_lanes(source, destination, lanes, between, between_lanes)
        return source, destination

    def connect_lanes(self, source, destination, lanes=2, between=None, between_lanes=1):
        if self.link is not None:
            self.link.close()
        self.link = Link(source, destination, lanes, between, between_lanes, self.tcp_pair)
        self.link.wait_up()

    def serve(self, *arguments):
        """Runs an NBD server whose socket's path is the last word; returns that path once it listens."""
        path = self.path(f's{len(self.servers)}')
        command = [argument.format(socket=path) for argument in arguments]
        with open(self.path('servers.log'), 'a') as log:  # they complain whenever a client leaves
            self.servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log))
        for _ in range(500):
            if os.path.exists(path):
                return path
            time.sleep(0.01)
        raise Failed(f'{arguments[0]} did not start')

    def qemu_nbd(self, image, kind, export, *options):
        return self.serve('qemu-nbd', '-k', '{socket}', '-f', kind, '-x', export, '-t', '-e', '100', '--discard=unmap', *options,
                          image)

    def throttled_qemu(self, image, export, bytes_per_second):
        """A QEMU that exports a raw IMAGE through a throttle node: its NBD socket and its QMP."""
        nbd = self.path('nbd')
        self.serve('qemu-system-x86_64', '-machine', 'none', '-nodefaults', '-display', 'none', '-S',
                   '-object', f'throttle-group,id=slow,x-bps-write={bytes_per_second}',
                   '-blockdev', f'driver=file,filename={image},node-name=file',
                   '-blockdev', 'driver=raw,file=file,node-name=disk',
                   '-blockdev', 'driver=throttle,throttle-group=slow,file=disk,node-name=throttle',
                   '-qmp', 'unix:{socket},server=on,wait=off')
        monitor = Qmp(pathlib.Path(self.path(f's{len(self.servers) - 1}')))
        monitor('nbd-server-start', addr={'type': 'unix', 'data': {'path': nbd}})
        monitor('block-export-add', id=export, type='nbd', node_name='throttle', writable=True, name=export)
        return nbd, monitor

    def stop_servers(self):
        """Ends all servers, so that images are closed and whole."""
        for server in self.servers:
            server.terminate()
            server.wait()

    @staticmethod
    def connect(path):
        """A connected socket: the daemon hands such to a mover."""
        for _ in range(500):
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                return sock.detach()
            except ConnectionRefusedError:  # bound, but does not listen yet
                sock.close()
                time.sleep(0.01)
        raise Failed(f'no server listens at {path}')

    def stream_pair(self):
        """QEMU's end and the mover's descriptor."""
        ours, theirs = socket.socketpair()
        self.sockets.append(ours)
        return ours, theirs.detach()


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


class Feeder(threading.Thread):
    """Plays the source's QEMU: writes STREAM, and closes the socket at its end unless told not to."""

    def __init__(self, sock, stream, close=True):
        super().__init__(daemon=True)
        self.sock, self.stream, self.close, self.sent = sock, memoryview(stream), close, 0
        self.start()

    def run(self):
        try:
            while self.sent < len(self.stream):
                self.sent += self.sock.send(self.stream[self.sent:self.sent + 262144])
            if self.close:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Drain(threading.Thread):
    """Plays the destination's QEMU: reads to the end."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock, self.data = sock, bytearray()
        self.start()

    def run(self):
        try:
            while data := self.sock.recv(262144):
                self.data += data
        except OSError:
            pass

    def wait(self, timeout=30):
        self.join(timeout)
        if self.is_alive():
            raise Failed('the stream did not end')
        return self.data


def stream_head(pages):
    """A migration stream of QEMU 7.2 up to the first part of RAM, which is one block of PAGES pages."""
    total = pages * 4096
    return b''.join([
        struct.pack('>II', 0x5145564d, 3), struct.pack('>BI', 7, 11) + b'pc-q35-7.2x'[:11],
        struct.pack('>BI', 1, 2) + b'\x03ram' + struct.pack('>II', 0, 4),
        struct.pack('>QB', total | 4, 6) + b'pc.ram' + struct.pack('>QQ', total, 0x10), struct.pack('>BI', 0x7e, 2)])


def page_record(page, body, names_block):
    """A record of a page with the bytes BODY, or of a zero page when BODY is None."""
    block = b'\x06pc.ram' if names_block else b''
    flags = (2 if body is None else 8) | (0 if names_block else 0x20)
    return struct.pack('>Q', page * 4096 | flags) + block + (b'\0' if body is None else body)


def stream_part(records, is_last):
    return struct.pack('>BI', 3 if is_last else 2, 2) + b''.join(records) + struct.pack('>QBI', 0x10, 0x7e, 2)


def device_state(size, noise):
    return struct.pack('>BI', 4, 3) + b'\x05timer' + struct.pack('>II', 0, 2) + noise.randbytes(size)


def text_page(number):
    return (b'The quick brown fox jumps over the lazy dog %08d. ' * 90 % tuple([number] * 90))[:4096]


def qemu_stream(pages, tail, seed=1):
    """A migration stream as QEMU 7.2 writes it: PAGES page records (a third zero, a third text, a third noise), then TAIL
    bytes of device state."""
    noise = random.Random(seed)
    out = [stream_head(pages)]
    for first in range(0, pages, 1000):
        last = min(first + 1000, pages)
        bodies = [None if page % 3 == 0 else text_page(page) if page % 3 == 1 else noise.randbytes(4096)
                  for page in range(first, last)]
        out.append(stream_part([page_record(page, body, page == first) for page, body in enumerate(bodies, first)],
                               last == pages))
    out.append(device_state(tail, noise))
    return b''.join(out)


def qemu_rounds(pages, rounds, tail, few_words=False, seed=1):
    """A migration stream in which every page is sent in each of ROUNDS, and the same without those that had not changed: a
    third is zero each time, a third text that stays, a third noise, of which all is new or (FEW_WORDS) eight bytes. Both, and
    how many pages the second one lacks."""
    noise = random.Random(seed)
    whole, lean = [stream_head(pages)], [stream_head(pages)]
    left_out = 0
    bodies = [None if page % 3 == 0 else text_page(page) if page % 3 == 1 else noise.randbytes(4096) for page in range(pages)]
    for number in range(rounds):
        records, needed = [], []
        for page in range(pages):
            if number > 0 and page % 3 == 2:
                old = bodies[page]
                bodies[page] = old[:2000] + noise.randbytes(8) + old[2008:] if few_words else noise.randbytes(4096)
            records.append(page_record(page, bodies[page], number == 0 and page == 0))
            if number == 0 or page % 3 == 2:
                needed.append(records[-1])
        whole.append(stream_part(records, number == rounds - 1))
        lean.append(stream_part(needed, number == rounds - 1))
        left_out += len(records) - len(needed)
    end = device_state(tail, noise)
    return b''.join(whole + [end]), b''.join(lean + [end]), left_out


class LyingPeer:
    """The source's end of one lane, spoken by this test with OpenSSL through ctypes, so that it can say anything."""

    def __init__(self, sock, ticket, key):
        lib = ctypes.CDLL('libssl.so.3')
        for name in ('TLS_client_method', 'SSL_CTX_new', 'SSL_new', 'SSL_CIPHER_find', 'SSL_SESSION_new'):
            getattr(lib, name).restype = ctypes.c_void_p
        pointer = ctypes.c_void_p
        self.lib, self.sock = lib, sock
        sock.setblocking(True)
        sock.settimeout(None)
        context = pointer(lib.SSL_CTX_new(pointer(lib.TLS_client_method())))

        def use(ssl, _md, identity, size, session):
            made = lib.SSL_SESSION_new()
            cipher = lib.SSL_CIPHER_find(pointer(ssl), b'\x13\x01')
            lib.SSL_SESSION_set1_master_key(pointer(made), key, ctypes.c_size_t(len(key)))
            lib.SSL_SESSION_set_cipher(pointer(made), pointer(cipher))
            lib.SSL_SESSION_set_protocol_version(pointer(made), 0x0304)
            identity[0] = ctypes.cast(self.ticket, pointer).value
            size[0] = len(ticket)
            session[0] = made
            return 1

        self.ticket = ctypes.create_string_buffer(ticket, len(ticket))
        self.callback = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, ctypes.POINTER(pointer),
                                         ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(pointer))(use)
        lib.SSL_CTX_set_psk_use_session_callback(context, self.callback)
        lib.SSL_CTX_set_ciphersuites(context, b'TLS_AES_128_GCM_SHA256')
        alpn = b'\x0dwatari-lane/1'
        lib.SSL_CTX_set_alpn_protos(context, alpn, len(alpn))
        self.ssl = pointer(lib.SSL_new(context))
        lib.SSL_set_fd(self.ssl, sock.fileno())
        if lib.SSL_connect(self.ssl) != 1:
            raise Failed('the lying peer got no TLS connection')

    def send(self, kind, body, length=None):
        data = struct.pack('>IBBH', len(body) if length is None else length, kind, 0, 0) + body
        self.lib.SSL_write(self.ssl, data, len(data))

    def receive(self):
        """One frame: (type, body), or None at the end."""
        header = self.read(8)
        if header is None:
            return None
        length, kind = struct.unpack('>IB', header[:5])
        return kind, self.read(length)

    def read(self, size):
        data = b''
        while len(data) < size:
            buffer = ctypes.create_string_buffer(size - len(data))
            got = self.lib.SSL_read(self.ssl, buffer, size - len(data))
            if got <= 0:
                return None
            data += buffer.raw[:got]
        return data
