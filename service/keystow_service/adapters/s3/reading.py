"""One ranged read, whole or not at all: a body that is cut is continued by range, pinned to the same content."""

from datetime import UTC
from typing import TYPE_CHECKING

from keystow_service.adapters.s3.bucket import Bucket, pinned
from keystow_service.errors import InternalError
from keystow_service.ports import StoredObject, StoredRange

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3.type_defs import GetObjectOutputTypeDef

_RUN = 1024 * 1024


class RangedRead:
    """Up to ``length`` bytes from ``start``. ``attempt`` may be repeated, and goes on where it stopped."""

    def __init__(self, bucket: Bucket, name: str, start: int, length: int, etag: str | None) -> None:
        self._bucket = bucket
        self._name = name
        self._position = start
        self._end = start + length
        self._etag = etag
        self._object: StoredObject | None = None
        self._runs: list[bytes] = []

    async def attempt(self) -> StoredRange:
        """Read the rest, if any: what broke off last may have been no more than the end of the answer.

        Raises what the S3 client raises.
        """
        if self._object is not None and self._position == self._end:
            return StoredRange(self._object, b"".join(self._runs))
        answer = await self._bucket.client.get_object(
            Bucket=self._bucket.name,
            Key=self._bucket.key(self._name),
            Range=f"bytes={self._position}-{self._end - 1}",
            **pinned(self._etag),
        )
        async with answer["Body"] as body:
            stored = self._object = self._describe(answer)
            self._etag = stored.etag
            self._end = min(self._end, stored.size)
            async for run in body.iter_chunks(_RUN):
                self._runs.append(run)
                self._position += len(run)
        return StoredRange(stored, b"".join(self._runs))

    def _describe(self, answer: "GetObjectOutputTypeDef") -> StoredObject:
        bounds, _, size = answer.get("ContentRange", "").partition("/")
        if not bounds.startswith(f"bytes {self._position}-") or not size.isdecimal():
            raise InternalError("The store answered another range than it was asked for.")
        return StoredObject(self._name, answer["ETag"], int(size), answer["LastModified"].astimezone(UTC))
