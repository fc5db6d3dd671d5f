"""What is asked of an Export, and what it answers beside the archive, as plain values."""

from dataclasses import dataclass
from enum import StrEnum

from keystow.v1 import storage_pb2
from keystow_client.errors import KeystowError, from_status
from keystow_client.models import ObjectInfo


class ArchiveFormat(StrEnum):
    """How the objects are put together."""

    TAR = "tar"  # POSIX.1-2001; goes on after interruptions
    ZIP = "zip"  # Zip64, not compressed, at most 65,534 objects; begins again


class ErrorPolicy(StrEnum):
    """What an object that cannot be exported does to the rest."""

    STOP = "stop"  # ends the export
    CONTINUE = "continue"  # is left out, and reported


@dataclass(frozen=True, slots=True)
class ExportEntry:
    """One object of an export: a member of the archive, or missing from it.

    ``info`` describes a member; ``error`` says why a missing object is missing. One of them is None.
    """

    key: str
    member_name: str  # the key, made safe to unpack; empty if it is missing
    info: ObjectInfo | None
    error: KeystowError | None

    @classmethod
    def from_proto(cls, entry: storage_pb2.ExportEntry) -> "ExportEntry":
        """The same facts without protobuf."""
        failed = entry.status.code != 0
        return cls(
            key=entry.object.key,
            member_name=entry.member_name,
            info=None if failed else ObjectInfo.from_proto(entry.object),
            error=from_status(entry.status) if failed else None,
        )


@dataclass(frozen=True, slots=True)
class ExportCheckpoint:
    """How far an export has come, and all that another process needs to go on with it.

    The token is of no use to anybody but the same caller with the same request.
    """

    checkpoint_token: bytes  # empty: at the very beginning
    archive_size: int  # bytes
    crc32c: int  # of the archive's first archive_size bytes


BEGINNING = ExportCheckpoint(b"", 0, 0)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What a whole archive holds, however many streams it took. Sizes in bytes."""

    object_count: int
    failed_count: int
    total_size: int  # of the objects' content
    archive_size: int
    complete: bool  # False if any object failed
    crc32c: int  # of the whole archive, as it was received

    @classmethod
    def from_proto(cls, summary: storage_pb2.ExportSummary, crc32c: int) -> "ExportSummary":
        """The same facts without protobuf, and what only the client knows."""
        return cls(
            object_count=summary.object_count,
            failed_count=summary.failed_count,
            total_size=summary.total_size,
            archive_size=summary.archive_size,
            complete=summary.complete,
            crc32c=crc32c,
        )
