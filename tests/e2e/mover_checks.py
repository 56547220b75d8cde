"""What the tests of the movers have in common: the list of them, checks with a sentence, the usual steps, and the loop that
runs them. Used by test_mover.py, mover_resume.py and mover_verify.py."""
import os
import sys
import time
import traceback

from mover_lab import (DISK, LANE, LANE_UP, MEMORY, MEMORY_DONE, PASS, PASS_DONE, QUIESCE, QUIESCED, Drain, Failed, Feeder,
                       Lab, LyingPeer, run, tcp_pair)

MIB = 1 << 20
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def equal(got, wanted, what):
    if got != wanted:
        raise Failed(f'{what} is {got!r}, not {wanted!r}')


def contains(text, part):
    if part not in text:
        raise Failed(f'{text!r} does not contain {part!r}')


def fails(mover, identifier, part):
    """Awaits FAILED with that id and a text with PART, then exit status 1."""
    got, text = mover.failure()
    equal(got, identifier, f'the id of FAILED ({text})')
    contains(text, part)
    equal(mover.wait_exit(), 1, 'the exit status')


def disk_pair(lab, source, destination, disk, size, target, reads_as_zero=True):
    """Orders DISK at both; TARGET is the socket of the writable export."""
    destination.order(DISK, lab.connect(target), disk=disk, size=size)
    source.order(DISK, disk=disk, size=size, reads_as_zero=reads_as_zero)


def copy(lab, source, disk, number, server, export, context=b'', start=0):
    source.order(PASS, lab.connect(server), disk=disk, number=number, export_name=export, context=context,
                 start=start)
    done = source.wait(PASS_DONE).passing
    equal((done.disk, done.number), (disk, number), 'PASS_DONE')
    return done


def make_source_image(path, size='1G'):
    run('qemu-img', 'create', '-q', '-f', 'qcow2', path, size)
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 0x5a 3M 20M', '-c', 'write -P 0x11 100M 64k', '-c', 'write -z 200M 8M',
        '-c', 'write -P 0 300M 4M', '-c', 'write -P 0x77 1023M 1M', path)


def allocated(path):
    return os.stat(path).st_blocks * 512


def quiesce(destination):
    destination.order(QUIESCE)
    destination.wait(QUIESCED)


def carry_memory(lab, stream, **options):
    source, destination = lab.pair(**options)
    qemu_out, fd_out = lab.stream_pair()
    qemu_in, fd_in = lab.stream_pair()
    destination.order(MEMORY, fd_in)
    source.order(MEMORY, fd_out)
    return source, destination, Feeder(qemu_out, stream), Drain(qemu_in)


def memory_arrives(source, destination, drain, stream):
    sent = source.wait(MEMORY_DONE, 60).memory
    got = destination.wait(MEMORY_DONE, 60).memory
    equal(sent.bytes, len(stream), 'bytes sent')
    equal(got.bytes, len(stream), 'bytes that arrived')
    equal(bytes(sent.hash), bytes(got.hash), "the destination's hash")
    if drain.wait() != stream:
        raise Failed('the stream that arrived differs')


def lying_peer(destination):
    """One lane, whose other end says what the test likes."""
    a, b = tcp_pair()
    secrets = dict(index=0, ticket=os.urandom(16), key=os.urandom(32))
    destination.order(LANE, b.detach(), **secrets)
    liar = LyingPeer(a, secrets['ticket'], secrets['key'])
    destination.wait(LANE_UP)
    return liar


def find_binary(arguments, usage):
    if arguments:
        return arguments[0]
    build = os.environ.get('WATARI_BUILD')
    if build is None:
        sys.exit(usage)
    return os.path.join(build, 'watari-mover')


def run_all(usage):
    """As the command line says; returns the exit status."""
    binary = os.path.abspath(find_binary(sys.argv[1:2], usage))
    names = sys.argv[2:]
    passed = failed = 0
    for function in TESTS:
        if names and function.__name__ not in names:
            continue
        begun = time.monotonic()
        with Lab(binary) as lab:
            try:
                function(lab)
                for mover in lab.movers:
                    equal(mover.complaints(), [], f'what a sanitizer says of {mover.name}')
                passed += 1
                print(f'ok   {function.__name__} ({time.monotonic() - begun:.1f} s)', flush=True)
            except Exception as error:  # whatever it was, the next test shall run
                failed += 1
                print(f'FAIL {function.__name__}: {error}', flush=True)
                if not isinstance(error, Failed):
                    traceback.print_exc()
                for mover in lab.movers:
                    print(f'     log of {mover.name}: {mover.log()}')
    print(f'{passed} passed, {failed} failed')
    return 1 if failed else 0
