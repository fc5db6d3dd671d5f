"""Where a Get or an Export writes to: a path, complete or not at all, or a file object.

Nothing appears under a path before every byte of it was verified and is on the disk. All methods block: they run in
the transfer's thread, one at a time.
"""

import errno
import os
import stat
import sys
from io import FileIO, RawIOBase
from pathlib import Path
from secrets import token_hex
from typing import Protocol, TypeAlias

from keystow_client.sources import Seekable

if sys.platform != "win32":
    import fcntl


class Writable(Protocol):
    """A binary file object, opened for writing."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """How many of the bytes were written; None from objects that take all of them."""
        ...


SinkLike: TypeAlias = os.PathLike[str] | Writable


class Sink(Protocol):
    """What one transfer, tried perhaps several times, is written to. Ends with ``commit`` or ``discard``."""

    @property
    def restartable(self) -> bool:
        """Whether ``start`` can be called once more."""
        ...

    @property
    def rewrites_in_place(self) -> bool:
        """Whether a new start leaves an earlier attempt's bytes to be overwritten, so that they must be the same."""
        ...

    def start(self, position: int = 0) -> None:
        """Begin, with the byte at this offset; what was written from there on is to be written anew."""
        ...

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        ...

    def commit(self) -> None:
        """All bytes are there, and verified."""
        ...

    def discard(self) -> None:
        """The transfer failed for good. Also called after ``commit`` failed, and harmless after it succeeded."""
        ...


def open_sink(dest: SinkLike, *, overwrite: bool) -> Sink:
    """The sink of a transfer. Raises TypeError for what cannot be written to."""
    match dest:
        case str():
            raise TypeError("a str is ambiguous: give a pathlib.Path")
        case os.PathLike():
            return PathSink(Path(dest), overwrite=overwrite)
        case _ if hasattr(dest, "write"):
            return FileSink(dest)
    raise TypeError(f"cannot write to a {type(dest).__name__}: give a Path or a binary file object")


class PathSink:
    """A file that appears under its name at once, whole and durable.

    A symbolic link with that name is replaced, not followed. A file that is replaced hands on its permissions.
    """

    restartable = True
    rewrites_in_place = False

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        """Nothing is touched yet."""
        self._path = path
        self._overwrite = overwrite
        self._temporary = path.with_name(f".{token_hex(8)}.keystow-part")
        self._file: FileIO | None = None

    def start(self, position: int = 0) -> None:
        """Raises OSError, FileExistsError among them, before a byte is fetched."""
        if self._file is not None:
            self._file.seek(position)
            self._file.truncate()
            return
        permissions = permissions_to_keep(self._path, overwrite=self._overwrite)
        try:
            self._file = self._temporary.open("xb", buffering=0)
        except OSError as error:  # the temporary name would only confuse
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        if permissions is not None:
            self._temporary.chmod(permissions)

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        _write_all(self._opened(), data)

    def commit(self) -> None:
        """Raises OSError; FileExistsError if the name was taken meanwhile and is not to be overwritten."""
        file = self._opened()
        os.fsync(file.fileno())
        file.close()
        publish(self._temporary, self._path, overwrite=self._overwrite)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError("start first")
        return self._file


class FileSink:
    """Somebody's file object. It stays open, is never truncated, and keeps what was written when the transfer fails."""

    rewrites_in_place = True

    def __init__(self, file: Writable) -> None:
        """Nothing is written yet."""
        self._file = file
        self._origin: int | None = None
        self._untouched = True

    @property
    def restartable(self) -> bool:
        """Pipes, and files that are appended to, cannot take back what was written."""
        return self._untouched or self._origin is not None

    def start(self, position: int = 0) -> None:
        """Raises OSError."""
        match self._file:
            case Seekable() if self._file.seekable() and not appends(self._file):
                if self._origin is None:
                    self._origin = self._file.tell()
                self._file.seek(self._origin + position)

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        self._untouched = False
        _write_all(self._file, data)

    def commit(self) -> None:
        """The file is its owner's to flush and close."""

    def discard(self) -> None:
        """As commit."""


def appends(file: object) -> bool:
    """Whether what is written goes to the file's end wherever it stands, so that seeking takes nothing back.

    What a shell opens with >> does, and says that it stands at 0 until something was written.
    """
    if sys.platform == "win32":
        return False
    raw = getattr(file, "raw", file)
    if not isinstance(raw, FileIO):  # others may do more than tell when they are asked for a descriptor
        return False
    return bool(fcntl.fcntl(raw.fileno(), fcntl.F_GETFL) & os.O_APPEND)


def _write_all(file: Writable, data: bytes) -> None:
    """Write every byte, however few a raw file takes at once."""
    rest: bytes | memoryview = data
    while rest:
        written = file.write(rest)
        if written is None:
            if isinstance(file, RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "a sink must block until it can take more")
            return  # a file-like object that does not count
        rest = memoryview(rest)[written:]


def permissions_to_keep(path: Path, *, overwrite: bool) -> int | None:
    """Those of the file that has the name already, if any. Raises OSError where no file can get it.

    FileExistsError if there is one, unless ``overwrite``.
    """
    try:
        existing = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(existing.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if stat.S_ISREG(existing.st_mode):
        return stat.S_IMODE(existing.st_mode) & 0o777
    if not stat.S_ISLNK(existing.st_mode):
        raise OSError(errno.EINVAL, "Neither a file nor free to become one", str(path))
    return None


def publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file that is whole and synced its name. Raises OSError; FileExistsError if the name was taken."""
    if overwrite:
        temporary.replace(path)
    else:
        _claim(path, temporary)
    sync_directory(path.parent)


def _claim(path: Path, temporary: Path) -> None:
    """Take the name only if it is free, which a rename cannot promise and a hard link can."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if os.path.lexists(path):  # a file system without hard links: as good as it can do
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)
    else:
        temporary.unlink()


def sync_directory(directory: Path) -> None:
    """Make a new name durable. Only POSIX systems open directories."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
