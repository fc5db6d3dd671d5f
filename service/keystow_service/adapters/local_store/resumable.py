"""Resumable uploads on the disk: two files each, the data and a journal of its parts, in ``.keystow/resumable``.

The journal is what a multipart upload is in S3: it names the durable parts, and who may write.

    owner 16 | begun, seconds u64 | for each part: its id 16 | its size u64

A writer owns the upload from its taking over until the next one does. It touches the data only under the journal's
shared lock and only while it is the owner; taking over, committing and discarding hold the lock alone. So a writer that
was overtaken, or outlived the commit, changes nothing any more. Taking over first cuts off what the writer was not
given: what stands after the durable parts is always of one writer.

Blocks: every call belongs in a thread.
"""

import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from keystow_service.adapters.local_store.files import StoreFiles, TempFile, write_all
from keystow_service.adapters.posix_files import file_lock, lock, sync_directory
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import UploadExpiredError, UploadSupersededError
from keystow_service.ports import StoredObject, WriteCondition

_HEAD = struct.Struct(">16sQ")
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


class ResumableFiles:
    """See the module."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._directory = files.own / "resumable"

    def prepare(self) -> None:
        """Make the directory."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._files.own)

    def reap(self, begun_before: float) -> int:
        """Remove the uploads that began before this time of day, or were committed; say how many."""
        reaped = 0
        for path in self._directory.glob("*" + _JOURNAL):
            with suppress(UploadExpiredError), self._opened(path.stem, alone=True) as journal:
                if _read_head(journal)[1] < begun_before or self._committed(path.stem):
                    self._remove(journal, path.stem)
                    reaped += 1
        return reaped

    def begin(self) -> Writer:
        """A new upload."""
        writer = Writer(secrets.token_hex(16), secrets.token_bytes(16))
        with _file(self._journal(writer.upload_id), create=True) as journal:
            os.pwrite(journal, _HEAD.pack(writer.owner, int(time.time())), 0)
            os.fsync(journal)
        with _file(self._data(writer.upload_id), create=True):
            sync_directory(self._directory)
        return writer

    def take_over(self, upload_id: str, parts: PartChain) -> Writer:
        """Become the owner after ``parts``. Raises UploadExpiredError, UploadSupersededError."""
        with self._opened(upload_id, alone=True) as journal:
            if self._committed(upload_id):
                self._remove(journal, upload_id)
                raise _expired()
            size, found = 0, PartChain()
            for part_id, part_size in _read_parts(journal, parts.count):
                found = found.after(part_id.hex(), part_size)
                size += part_size
            if found != parts:
                raise _superseded()
            owner = secrets.token_bytes(16)
            os.pwrite(journal, owner, 0)
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
            os.pwrite(journal, _PART.pack(part_id, len(part)), _HEAD.size + (number - 1) * _PART.size)
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
        with suppress(UploadExpiredError), self._opened(upload_id, alone=True) as journal:
            self._remove(journal, upload_id)

    def _remove(self, journal: int, upload_id: str) -> None:
        os.pwrite(journal, _NOBODY, 0)  # for those who wait for the lock
        self._data(upload_id).unlink(missing_ok=True)
        self._journal(upload_id).unlink(missing_ok=True)
        sync_directory(self._directory)

    @contextmanager
    def _owned(self, writer: Writer, *, alone: bool) -> Iterator[int]:
        with self._opened(writer.upload_id, alone=alone) as journal:
            if _read_head(journal)[0] != writer.owner:
                raise _superseded()
            yield journal

    @contextmanager
    def _opened(self, upload_id: str, *, alone: bool) -> Iterator[int]:
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
            if _read_head(journal)[0] == _NOBODY:
                raise _expired()
            yield journal

    def _committed(self, upload_id: str) -> bool:
        """Whether a process died between its commit and removing the upload: the data has become an object."""
        try:
            return self._data(upload_id).stat().st_nlink > 1
        except FileNotFoundError:
            return True

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


def _read_head(journal: int) -> tuple[bytes, int]:
    """Owner and time; of a journal that was cut short by a crash, nobody and the beginning of time."""
    head = os.pread(journal, _HEAD.size, 0)
    owner, begun = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
    return owner, begun


def _read_parts(journal: int, count: int) -> Iterator[tuple[bytes, int]]:
    """The first ``count`` that are there; a part never written has no id."""
    records = os.pread(journal, count * _PART.size, _HEAD.size)
    return _PART.iter_unpack(records[: len(records) // _PART.size * _PART.size])


def _expired() -> UploadExpiredError:
    return UploadExpiredError("The store no longer knows the upload: it was aborted, or its time is over. Begin again.")


def _superseded() -> UploadSupersededError:
    return UploadSupersededError("Another stream has continued this upload. Leave it to that one, or put anew.")
