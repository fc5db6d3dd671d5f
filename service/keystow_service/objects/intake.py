"""What a Put sends, checked as it comes: the order of chunks, their checksums, and the sums at the end."""

import hashlib

import google_crc32c

from keystow_service.envelope import crc32c
from keystow_service.envelope.layout import MAX_UNDECLARED_SIZE
from keystow_service.envelope.tally import Tally
from keystow_service.errors import (
    ChecksumMismatchError,
    ObjectTooLargeError,
    OffsetMismatchError,
    SizeMismatchError,
)
from keystow_service.objects.command import Chunk, Finish, PutCommand
from keystow_service.objects.progress import LatestProgress


class Intake:
    """Counts and sums the plaintext of one Put."""

    def __init__(
        self,
        command: PutCommand,
        max_object_size: int,
        *,
        before: Tally | None = None,
        progress: LatestProgress | None = None,
    ) -> None:
        """``before`` is what earlier streams of the upload have made durable.

        Raises ObjectTooLargeError for a declared size over ``max_object_size`` bytes.
        """
        self.size = before.size if before is not None else 0
        self.crc32c = before.crc32c if before is not None else 0
        self._progress = progress
        self._declared = command.size
        self._limit = max_object_size if command.size is not None else min(max_object_size, MAX_UNDECLARED_SIZE)
        self._sha256 = hashlib.sha256() if command.sha256 else None
        self._check_limit(command.size or 0)

    @property
    def sha256(self) -> bytes | None:
        """Of what came so far, if the command asks for it."""
        return self._sha256.digest() if self._sha256 else None

    def take(self, chunk: Chunk) -> int:
        """The next chunk; answers its CRC32C.

        Raises OffsetMismatch…, ChecksumMismatch…, SizeMismatch…, ObjectTooLargeError.
        """
        if chunk.offset != self.size:
            raise OffsetMismatchError(
                f"The chunk starts at {chunk.offset}, but the next byte is the one at {self.size}. "
                "Send chunks in order, without gaps.",
                persisted_size=str(self._progress.persisted_size if self._progress is not None else 0),
            )
        checksum: int = google_crc32c.value(chunk.data)
        if chunk.crc32c not in (None, checksum):
            raise ChecksumMismatchError(
                f"The chunk at {chunk.offset} has another CRC32C than the one sent with it. Put the object again."
            )
        size = self.size + len(chunk.data)
        if self._declared is not None and size > self._declared:
            raise SizeMismatchError(f"More bytes have come than PutHeader.size, which is {self._declared}.")
        self._check_limit(size)
        self.crc32c = crc32c.combine(self.crc32c, checksum, len(chunk.data))
        if self._sha256:
            self._sha256.update(chunk.data)
        self.size = size
        return checksum

    def finish(self, finish: Finish) -> None:
        """The end. Raises SizeMismatchError, ChecksumMismatchError."""
        if finish.size != self.size or self._declared not in (None, self.size):
            raise SizeMismatchError(
                f"{self.size} bytes have come, but PutFinish.size is {finish.size}"
                + ("." if self._declared is None else f" and PutHeader.size is {self._declared}.")
            )
        if finish.crc32c not in (None, self.crc32c):
            raise ChecksumMismatchError("The object has another CRC32C than PutFinish.crc32c. Put it again.")
        if self._sha256 and finish.sha256 and finish.sha256 != self._sha256.digest():
            raise ChecksumMismatchError("The object has another SHA-256 than PutFinish.sha256. Put it again.")

    def _check_limit(self, size: int) -> None:
        if size > self._limit:
            raise ObjectTooLargeError(
                f"The object is larger than {self._limit} bytes"
                + (". Declare PutHeader.size to store up to the server's limit." if self._declared is None else ".")
            )
