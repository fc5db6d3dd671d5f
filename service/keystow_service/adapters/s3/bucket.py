"""What every S3 call needs: the client, the bucket, where names begin, and how often to try."""

import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, TypeVar

import google_crc32c

from keystow_service.adapters.s3.faults import S3Fault
from keystow_service.adapters.s3.retry import IDEMPOTENT, RetryPolicy

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3 import S3Client

T = TypeVar("T")

_RUN = 256 * 1024


class Checksum(TypedDict, total=False):
    """The argument that has S3 verify a body."""

    ChecksumCRC32C: str


class Pin(TypedDict, total=False):
    """The argument that ties a call to one content."""

    IfMatch: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """See the module."""

    client: "S3Client"
    name: str
    prefix: str
    retries: RetryPolicy
    checksums: bool
    confirm_complete: bool

    def key(self, name: str) -> str:
        """The S3 key of an object's name."""
        return self.prefix + name

    async def repeat(self, send: Callable[[], Awaitable[T]]) -> T:
        """A call that may be carried out twice. Raises S3Fault."""
        return await self.retries.call(send, IDEMPOTENT)

    def checksum(self, data: bytearray) -> Checksum:
        """Of what is sent, if S3 is to verify it."""
        if not self.checksums:
            return {}
        view = memoryview(data)
        crc = 0
        for start in range(0, len(view), _RUN):  # google_crc32c takes no bytearray; a run's copy stays in the cache
            crc = google_crc32c.extend(crc, bytes(view[start : start + _RUN]))
        return {"ChecksumCRC32C": base64.b64encode(crc.to_bytes(4, "big")).decode()}


def pinned(etag: str | None) -> Pin:
    """The call only holds for this content, if one is given."""
    return {} if etag is None else {"IfMatch": etag}


@contextmanager
def meaning(answers: Mapping[str, Exception]) -> Iterator[None]:
    """Raise our errors for an S3Fault: by its code where this call gives that one a meaning, else its own."""
    try:
        yield
    except S3Fault as fault:
        raise answers.get(fault.code, fault.error) from None
