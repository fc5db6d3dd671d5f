"""What POSIX must be told so that files have one writer at a time and survive a power cut."""

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TIMEOUT = 30.0  # seconds; holders keep it for milliseconds, so a longer wait is a stopped process
_POLL = 0.01

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of <linux/falloc.h>
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS)


class FileLockTimeoutError(Exception):
    """Another process holds the lock and does not let go. The message is the operator's."""


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold flock(2) on the file, which is made if missing and stays. Blocks: call it in a thread.

    The kernel lets go when the process dies, so no stale lock stays behind. Raises FileLockTimeoutError, OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def create_private_file(path: Path, content: bytes) -> None:
    """Make a file that only its owner reads, durable and whole or not at all. Under a lock: one name is temporary.

    Linked into place when complete: a plain exclusive create would show other processes an empty file, and leave one
    behind after a crash. Raises FileExistsError, OSError.
    """
    unnamed = path.with_name(path.name + ".new")
    unnamed.unlink(missing_ok=True)
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        path.hardlink_to(unnamed)
    finally:
        unnamed.unlink()
    sync_directory(path.parent)


def reserve_space(descriptor: int, start: int, length: int) -> None:
    """Take disk blocks for what is to be written from ``start`` on, beyond the file's end, and leave its size alone.

    So that a disk that others fill has room for it. No effect on file systems that cannot. Raises OSError.
    (fallocate(2); os.posix_fallocate would make the file longer.)
    """
    if _LIBC.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        if number not in _CANNOT_RESERVE:
            raise OSError(number, os.strerror(number))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path, *, shared: bool = False) -> None:
    """Wait for flock(2) on an open file; closing it lets go. Raises FileLockTimeoutError."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FileLockTimeoutError(
                    f"Another process has held {path} for {_TIMEOUT:.0f} s. Find it (lsof): it may be stopped."
                ) from None
            time.sleep(_POLL)
        else:
            return


def is_missing(path: Path) -> bool:
    """Whether there is nothing of this name, for sure. What may not be looked at may be there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
