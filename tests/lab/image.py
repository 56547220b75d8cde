"""Disk images for guests: empty ones, and ones that hold a file system with real files.

The files are taken from this machine in a fixed order, so the same machine gives the same image.
Beside them lies .manifest, by which the guest's workload proves them intact (tests/guest/files.h).
"""

import os
import pathlib
import stat
import subprocess
import tempfile
import zlib

from .errors import LabError

SOURCES = ("/usr/lib", "/usr/share", "/usr/bin")
LARGEST_FILE = 32 << 20


def create(path, size, kind="qcow2"):
    """An empty image. SIZE in bytes, any multiple of 512; nothing of it is allocated."""
    _run(["qemu-img", "create", "-q", "-f", kind, path, str(size)])


def with_files(path, size, files_mib, kind="qcow2"):
    """An image whose ext4 file system fills three quarters of it and holds FILES_MIB of real files;
    the rest is for the workload's own blocks (Load.disk_mib)."""
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        tree = pathlib.Path(scratch, "tree")
        tree.mkdir()
        gather(tree, files_mib << 20)
        raw = pathlib.Path(scratch, "raw")
        with open(raw, "wb") as file:
            file.truncate(size)
        blocks = size * 3 // 4 // 4096
        _run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, raw, str(blocks)])
        if kind == "raw":
            os.rename(raw, path)
        else:
            _run(["qemu-img", "convert", "-q", "-f", "raw", "-O", kind, raw, path])


def gather(tree, wanted):
    """Copies files of WANTED bytes in all below TREE, and writes their manifest."""
    lines = []
    total = 0
    for source in _candidates():
        if total >= wanted:
            break
        content = source.read_bytes()
        target = tree / str(source)[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        lines.append(f"{zlib.crc32(content):08x} {len(content)} {str(source)[1:]}\n")
        total += len(content)
    if total < wanted:
        raise LabError(f"there are only {total >> 20} MiB of files below {' '.join(SOURCES)}")
    listed = "".join(lines)
    end = f"end {zlib.crc32(listed.encode()):08x} {len(lines)}\n"
    (tree / ".manifest").write_text(listed + end, encoding="utf-8")


def _candidates():
    """Ordinary files with ordinary names, in the order of their paths."""
    for top in SOURCES:
        for directory, subdirectories, names in os.walk(top):
            subdirectories.sort()
            for name in sorted(names):
                path = pathlib.Path(directory, name)
                try:
                    status = path.lstat()
                except OSError:
                    continue
                good = stat.S_ISREG(status.st_mode) and 0 < status.st_size <= LARGEST_FILE
                if good and str(path).isascii() and str(path).isprintable():
                    yield path


def copy(source, target):
    """Copies an image of a VM that does not run, holes as holes."""
    _run(["cp", "--sparse=always", source, target])


def allocated(path):
    """Bytes that the image takes of its file system."""
    return os.stat(path).st_blocks * 512


def _run(argv):
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"{argv[0]}: {result.stderr.strip() or result.stdout.strip()}")
