"""The system calls behind a host that Python has no names for yet: unshare, setns, mount, prctl.

Used by host_init.py and host_enter.py, which run as programs of their own.
"""

import ctypes
import os

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ALL = CLONE_NEWTIME | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags):
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor, flags):
    _checked(_libc.setns(descriptor, flags), "setns")


def mount(source, target, kind=None, flags=0, data=None):
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if data is None else data.encode()
    _checked(_libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount on {target}")


def die_with_parent(signal):
    """SIGNAL comes when the thread that made this process ends. Not inherited by children."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")
