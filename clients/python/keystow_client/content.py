"""What the bytes of an object add up to, and whether the service says the same."""

import hashlib

import google_crc32c

from keystow.v1.storage_pb2 import Chunk, ObjectInfo
from keystow_client.errors import IntegrityError, Recovery, SourceChangedError


class Content:
    """Size and checksums of the bytes read so far."""

    def __init__(self, *, size: int = 0, crc32c: int = 0, with_sha256: bool = False) -> None:
        """Goes on after ``size`` bytes. SHA-256 costs more than the rest of a Put together: only where asked for."""
        self.size = size
        self.crc32c = crc32c
        self._sha256 = hashlib.sha256() if with_sha256 else None

    def add(self, data: bytes) -> None:
        """Continue with these bytes."""
        self.size += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def sha256(self) -> bytes:
        """The digest; empty where it was not asked for."""
        return b"" if self._sha256 is None else self._sha256.digest()

    def require_size(self, size: int | None) -> None:
        """Raises SourceChangedError if the source is not as long as promised."""
        if size is not None and size != self.size:
            raise SourceChangedError(
                f"The source has {self.size} bytes where {size} were announced: it changed while it was read, "
                "or the size given was wrong. Nothing was stored."
            )

    def require_same(self, info: ObjectInfo) -> None:
        """Raises IntegrityError if the service acknowledged anything but these bytes."""
        stored = (info.size, info.crc32c if info.HasField("crc32c") else None)
        if stored != (self.size, self.crc32c) or (self.sha256 and info.sha256 != self.sha256):
            raise IntegrityError(
                f"The service acknowledged other bytes than were sent. Do not rely on version {info.version_id}: "
                "overwrite or delete it, and report this."
            )


def checked(chunk: Chunk, position: int) -> bytes:
    """The bytes of a chunk that must begin at ``position``. Raises IntegrityError if they are not those sent."""
    data = chunk.data  # a copy at each access
    if chunk.offset != position:
        raise corrupt("a chunk out of place")
    if chunk.HasField("crc32c") and chunk.crc32c != google_crc32c.value(data):
        raise corrupt("a chunk with a wrong checksum")
    return data


def corrupt(what: str, recovery: Recovery = Recovery.RESTART) -> IntegrityError:
    """The failure of a stream whose messages do not hold together."""
    return IntegrityError(f"The server sent {what}.", recovery=recovery)
