"""One file of the audit log, while it grows.

The promise: ``append`` puts its bytes on the disk, all of them, or leaves the file as it was.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from keystow_service.adapters.posix_files import reserve_space, sync_directory


class LogFile:
    """A new file, which nobody else writes. Blocks everywhere; raises OSError."""

    def __init__(self, path: Path, reserve: int) -> None:
        """``reserve``: bytes of disk space that are kept ready for what comes."""
        self._path = path
        self._reserve = reserve
        self._reserved = 0  # up to there
        self.size = 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # tells others that its writer lives
            sync_directory(path.parent)
        except OSError:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            raise

    def append(self, data: bytes) -> None:
        """Durable on return. Raises FileNotFoundError if somebody removed the file, or some of it; OSError."""
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0 or status.st_size < self.size:
            raise FileNotFoundError(self._path)
        if status.st_size != self.size:
            os.ftruncate(self._descriptor, self.size)  # what an earlier failure left
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            # Also after a failed sync: the kernel takes those pages for written, and only new ones are written again.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def reserve(self) -> None:
        """Have at least half of the reserve ready. Raises OSError if there is no room."""
        if self._reserve and self._reserved - self.size < self._reserve // 2:
            reserve_space(self._descriptor, self.size, self._reserve)
            self._reserved = self.size + self._reserve

    def give_back(self) -> None:
        """What was reserved, and what a failure left: nothing more is appended."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, min(self.size, os.fstat(self._descriptor).st_size))

    def close(self) -> None:
        """And give back."""
        self.give_back()
        os.close(self._descriptor)


def is_written(path: Path) -> bool:
    """Whether its writer lives, and has the file open. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def release(path: Path) -> None:
    """Give back what a writer reserved that was killed; of one that lives, nothing. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as is_written does, which may be asked just now
        status = os.fstat(descriptor)  # only now: until then it grows
        if status.st_blocks * 512 > status.st_size + status.st_blksize:
            os.ftruncate(descriptor, status.st_size)
    finally:
        os.close(descriptor)
