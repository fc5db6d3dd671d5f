"""What POSIX must be told so that files have one writer at a time and survive a power cut."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TIMEOUT = 30.0  # seconds; holders keep it for milliseconds, so a longer wait is a stopped process
_POLL = 0.01


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
