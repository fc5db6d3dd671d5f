"""The files of the local store, below one root: objects under their names, everything else in ``.keystow``.

Blocks: every call belongs in a thread. The promises are kept here: an object appears whole or not at all, by one rename
after its bytes are synced, which leaves nothing behind that could become an object again; it is durable when its
directory is synced too; compare-and-change happens under a lock that all processes on the root share.

Of a new path every directory is synced into its parent by who made it. A commit that finds a directory which another
process has made, but not yet synced, is durable all the same: journalling file systems write metadata in order, so
syncing the deeper directory writes the shallower one's creation first.
"""

import errno
import fcntl
import os
import stat
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from keystow_service.adapters.local_store.paths import relative_path
from keystow_service.adapters.posix_files import file_lock, sync_directory
from keystow_service.errors import (
    KeystowError,
    ObjectChangedError,
    ObjectNotFoundError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from keystow_service.ports import (
    Absent,
    ConditionFailed,
    Matches,
    StoredObject,
    StoredRange,
    UnfinishedUpload,
    WriteCondition,
)

_LOCKS = 256
_NAMING_ATTEMPTS = 100
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # ELOOP: a symbolic link, which is nothing of ours


@dataclass(frozen=True, slots=True)
class TempFile:
    """A file on its way, locked by its descriptor as long as its writer lives."""

    descriptor: int
    path: Path


class StoreFiles:
    """See the module."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.own = self.root / ".keystow"
        self.locks = self.own / "locks"
        self._uploads = self.own / "uploads"

    def prepare(self) -> None:
        """Make the directories that are missing."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.own, self.locks, self._uploads):
            directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self.own)
        sync_directory(self.root)

    def create_temp(self) -> TempFile:
        """A new file for an upload. Another process may take it for an orphan before it is locked, and remove it."""
        while True:
            path = self._uploads / uuid.uuid4().hex
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return TempFile(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def discard_temp(self, temp: TempFile) -> None:
        """Remove an upload's file; one that has been renamed since is left alone."""
        temp.path.unlink(missing_ok=True)
        os.close(temp.descriptor)

    def orphans(self) -> Iterator[UnfinishedUpload]:
        """The files whose writers are dead; they began when they were last written to, or before."""
        for path in self._uploads.iterdir():
            with suppress(FileNotFoundError), _orphan(path) as descriptor:
                if descriptor is not None:
                    written = datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
                    yield UnfinishedUpload("", path.name, written, dead=True)

    def remove_orphan(self, upload_id: str) -> None:
        """Remove such a file, if it is one."""
        path = self._uploads / upload_id
        with suppress(FileNotFoundError), _orphan(path) as descriptor:
            if descriptor is not None:
                path.unlink(missing_ok=True)

    def publish(self, temp: TempFile, name: str, condition: WriteCondition) -> StoredObject:
        """Make a written file the object, durably; the caller discards it next. Raises ConditionFailed."""
        target = self._path(name)
        # The clock's own nanoseconds, not the kernel's ticks, so that no two contents of a name share an ETag.
        now = time.time_ns()
        os.utime(temp.descriptor, ns=(now, now))
        os.fsync(temp.descriptor)
        stored = _stored(name, os.fstat(temp.descriptor))
        with self._locked(name):
            match condition:
                case Absent():
                    if os.path.lexists(target):
                        raise ConditionFailed
                case Matches(etag):
                    standing = _status(target)
                    if standing is None or _etag(standing) != etag:
                        raise ConditionFailed
            self._name(temp.path, target)
            sync_directory(target.parent)
        return stored

    def head(self, name: str) -> StoredObject:
        """Raises ObjectNotFoundError."""
        status = _status(self._path(name))
        if status is None:
            raise self._missing()
        return _stored(name, status)

    def read(self, name: str, start: int, length: int, etag: str | None) -> StoredRange:
        """All through one descriptor, so of one content. Raises ObjectNotFoundError, ObjectChangedError."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise self._missing() from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._missing()
            stored = _stored(name, status)
            if etag not in (None, stored.etag):
                raise ObjectChangedError("The stored object was replaced while it was being read. Begin again.")
            return StoredRange(stored, _read_all(descriptor, start, min(length, stored.size - start)))
        finally:
            os.close(descriptor)

    def delete(self, name: str, etag: str | None) -> None:
        """Remove the object durably, and the directories that it leaves empty.

        Raises ObjectNotFoundError, ConditionFailed.
        """
        path = self._path(name)
        with self._locked(name):
            status = _status(path)
            if status is None:
                raise self._missing()
            if etag not in (None, _etag(status)):
                raise ConditionFailed
            _unlink_durably(path)
        for directory in path.parents:
            if directory == self.root:
                break
            try:
                directory.rmdir()
            except OSError:
                break  # not empty, or another delete was faster

    def stored(self, name: str, path: str) -> StoredObject | None:
        """The object whose path a listing found, unless it is gone."""
        status = _status(Path(path))
        return None if status is None else _stored(name, status)

    def check(self) -> None:
        """Tell an empty store from a disk that is not there. Raises StoreMisconfiguredError."""
        if not self._uploads.is_dir():
            raise StoreMisconfiguredError("The local store's directory is gone. Is its disk mounted?")

    def _missing(self) -> KeystowError:
        self.check()
        return ObjectNotFoundError("There is no such object.")

    def _path(self, name: str) -> Path:
        return self.root / relative_path(name)

    def _locked(self, name: str) -> AbstractContextManager[None]:
        return file_lock(self.locks / f"{zlib.crc32(name.encode()) % _LOCKS:02x}")

    def _name(self, source: Path, target: Path) -> None:
        """A delete may prune the directories between their making and the rename, so try again."""
        for _ in range(_NAMING_ATTEMPTS):
            try:
                source.replace(target)
            except FileNotFoundError:
                self._make_directories(target.parent)
            else:
                return
        raise StoreUnavailableError("The local store could not make an object's directory. Is its root still there?")

    def _make_directories(self, directory: Path) -> None:
        missing = [directory, *directory.parents]
        for path in reversed(missing[: missing.index(self.root)]):
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return  # pruned again: the rename finds out
            with suppress(FileNotFoundError):
                sync_directory(path.parent)


def write_all(descriptor: int, offset: int, data: bytes | bytearray) -> None:
    """Write all of it, however little the system takes at a time."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def _read_all(descriptor: int, start: int, length: int) -> bytes:
    runs: list[bytes] = []
    while length > 0 and (run := os.pread(descriptor, length, start)):
        runs.append(run)
        start += len(run)
        length -= len(run)
    return runs[0] if len(runs) == 1 else b"".join(runs)


def _status(path: Path) -> os.stat_result | None:
    """None where there is no regular file."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _etag(status: os.stat_result) -> str:
    """Which content it is: another file, or the same one written to, differs."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _stored(name: str, status: os.stat_result) -> StoredObject:
    modified = datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC)
    return StoredObject(name, _etag(status), status.st_size, modified)


def _unlink_durably(path: Path) -> None:
    """Through the directory's descriptor: another delete may prune the directory before it is synced."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.unlink(path.name, dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _orphan(path: Path) -> Iterator[int | None]:
    """The file, locked; None if its writer lives: the kernel lets go of a dead process's locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)
