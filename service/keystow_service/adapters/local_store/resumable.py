"""Resumable uploads on the disk: two files each, the data and a journal of its parts, in ``.keystow/resumable``.

The journal is what a multipart upload is in S3: it names the durable parts, and who may write.

    owner 16 | begun, seconds u64 | name 1024, padded | for each part: its id 16 | its size u64

A writer owns the upload from its taking over until the next one does. It touches the data only under the journal's
shared lock and only while it is the owner; taking over, committing and discarding hold the lock alone. So a writer that
was overtaken, or outlived the commit, changes nothing any more. Taking over first cuts off what the writer was not
given: what stands after the durable parts is always of one writer.

The data becomes the object by its rename, so a journal without data is what is left of a commit, or of a beginning,
whose process died. Such an upload is dead, as is one without an owner, whose removal was not finished.

Blocks: every call belongs in a thread.
"""

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from keystow_service.adapters.local_store.files import StoreFiles, TempFile, write_all
from keystow_service.adapters.posix_files import file_lock, lock, sync_directory
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import UploadExpiredError, UploadSupersededError
from keystow_service.ports import Clock, StoredObject, UnfinishedUpload, WriteCondition

_HEAD = struct.Struct(">16sQ1024s")  # no name is longer in S3 either
_PART = struct.Struct(">16sQ")
_NOBODY = bytes(16)
_JOURNAL = ".parts"
_TURNSTILES = 64


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, and where. ``parts`` and ``size`` (bytes) are of what it was given."""

    upload_id: str
    owner: bytes
    parts: int = 0
    size: int = 0


class _Head(NamedTuple):
    owner: bytes
    begun: int
    padded_name: bytes


class ResumableFiles:
    """See the module."""

    def __init__(self, files: StoreFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._directory = files.own / "resumable"

    def prepare(self) -> None:
        """Make the directory."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._files.own)

    def begin(self, name: str) -> Writer:
        """A new upload of the object ``name``. Its journal appears under its lock, or it would pass for a dead one."""
        writer = Writer(secrets.token_hex(16), secrets.token_bytes(16))
        journal = self._files.create_temp()
        try:
            begun = int(self._clock.now().timestamp())
            write_all(journal.descriptor, 0, _HEAD.pack(writer.owner, begun, name.encode()))
            os.fsync(journal.descriptor)
            journal.path.rename(self._journal(writer.upload_id))
            with _file(self._data(writer.upload_id), create=True):
                sync_directory(self._directory)
        finally:
            self._files.discard_temp(journal)
        return writer

    def unfinished(self) -> Iterator[UnfinishedUpload]:
        """All uploads that are there, in no order. Waits for nobody: who holds an upload's lock is alive."""
        for path in self._directory.glob("*" + _JOURNAL):
            with suppress(FileNotFoundError), _file(path) as journal:
                head = _read_head(journal)
                try:
                    fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    dead = False
                else:
                    dead = _read_head(journal).owner == _NOBODY or not self._data(path.stem).exists()
                name = head.padded_name.rstrip(b"\0").decode()
                begun = datetime.fromtimestamp(head.begun, UTC)
                yield UnfinishedUpload(name, path.stem, begun, dead=dead)

    def take_over(self, upload_id: str, parts: PartChain) -> Writer:
        """Become the owner after ``parts``. Raises UploadExpiredError, UploadSupersededError."""
        with self._opened(upload_id, alone=True) as journal:
            if not self._data(upload_id).exists():
                raise _expired()
            size, found = 0, PartChain()
            for part_id, part_size in _read_parts(journal, parts.count):
                found = found.after(part_id.hex(), part_size)
                size += part_size
            if found != parts:
                raise _superseded()
            owner = secrets.token_bytes(16)
            write_all(journal, 0, owner)
            os.ftruncate(journal, _HEAD.size + parts.count * _PART.size)
            os.fsync(journal)
            with _file(self._data(upload_id)) as data:
                os.ftruncate(data, size)
                os.fsync(data)
            return Writer(upload_id, owner, parts.count, size)

    def write(self, writer: Writer, number: int, offset: int, part: bytearray) -> str:
        """Write a part at ``offset`` of the data, durably; its ETag."""
        part_id = secrets.token_bytes(16)
        with self._owned(writer, alone=False) as journal:
            with _file(self._data(writer.upload_id)) as data:
                write_all(data, offset, part)
                os.fdatasync(data)
            write_all(journal, _HEAD.size + (number - 1) * _PART.size, _PART.pack(part_id, len(part)))
            os.fdatasync(journal)
        return part_id.hex()

    def publish(
        self, writer: Writer, offset: int, last: bytearray, name: str, condition: WriteCondition
    ) -> StoredObject:
        """Write the last part, make the data the object, and end the upload. Raises ConditionFailed."""
        with self._owned(writer, alone=True) as journal:
            with _file(self._data(writer.upload_id)) as data:
                write_all(data, offset, last)
                stored = self._files.publish(TempFile(data, self._data(writer.upload_id)), name, condition)
            self._remove(journal, writer.upload_id)
            return stored

    def discard(self, upload_id: str) -> None:
        """Remove the upload, if there is one."""
        with suppress(UploadExpiredError), self._locked(upload_id, alone=True) as journal:
            self._remove(journal, upload_id)

    def _remove(self, journal: int, upload_id: str) -> None:
        write_all(journal, 0, _NOBODY)  # for those who wait for the lock
        self._data(upload_id).unlink(missing_ok=True)
        self._journal(upload_id).unlink(missing_ok=True)
        sync_directory(self._directory)

    @contextmanager
    def _owned(self, writer: Writer, *, alone: bool) -> Iterator[int]:
        with self._opened(writer.upload_id, alone=alone) as journal:
            if _read_head(journal).owner != writer.owner:
                raise _superseded()
            yield journal

    @contextmanager
    def _opened(self, upload_id: str, *, alone: bool) -> Iterator[int]:
        """The journal of an upload that somebody owns, under its lock. Raises UploadExpiredError."""
        with self._locked(upload_id, alone=alone) as journal:
            if _read_head(journal).owner == _NOBODY:
                raise _expired()
            yield journal

    @contextmanager
    def _locked(self, upload_id: str, *, alone: bool) -> Iterator[int]:
        """The journal, under its lock. Raises UploadExpiredError."""
        path = self._journal(upload_id)
        with ExitStack() as stack:
            # Who waits for the lock alone keeps those out who would share it, and so is not passed over for ever.
            with file_lock(self._files.locks / f"r{zlib.crc32(upload_id.encode()) % _TURNSTILES:02x}"):
                try:
                    journal = stack.enter_context(_file(path))
                except FileNotFoundError:
                    raise _expired() from None
                lock(journal, path, shared=not alone)
            yield journal

    def _data(self, upload_id: str) -> Path:
        return self._directory / upload_id

    def _journal(self, upload_id: str) -> Path:
        return self._directory / (upload_id + _JOURNAL)


@contextmanager
def _file(path: Path, *, create: bool = False) -> Iterator[int]:
    new = os.O_CREAT | os.O_EXCL if create else 0
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | new, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_head(journal: int) -> _Head:
    """Of a journal that was cut short, nobody's, and of the beginning of time."""
    return _Head(*_HEAD.unpack(os.pread(journal, _HEAD.size, 0).ljust(_HEAD.size, b"\0")))


def _read_parts(journal: int, count: int) -> Iterator[tuple[bytes, int]]:
    """The first ``count`` that are there; a part never written has no id."""
    records = os.pread(journal, count * _PART.size, _HEAD.size)
    return _PART.iter_unpack(records[: len(records) // _PART.size * _PART.size])


def _expired() -> UploadExpiredError:
    return UploadExpiredError("The store no longer knows the upload: it was aborted, or its time is over. Begin again.")


def _superseded() -> UploadSupersededError:
    return UploadSupersededError("Another stream has continued this upload. Leave it to that one, or put anew.")
