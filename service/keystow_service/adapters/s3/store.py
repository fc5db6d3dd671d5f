"""The ObjectStore port over one S3 bucket."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import UTC

from keystow_service.adapters.s3 import listing
from keystow_service.adapters.s3.bucket import Bucket, meaning, pinned
from keystow_service.adapters.s3.faults import (
    INVALID_OBJECT_STATE,
    INVALID_RANGE,
    NO_SUCH_KEY,
    PRECONDITION_FAILED,
    S3Fault,
)
from keystow_service.adapters.s3.multipart import MultipartUpload, create, remove
from keystow_service.adapters.s3.reading import RangedRead
from keystow_service.adapters.s3.upload import S3Upload
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import (
    ObjectArchivedError,
    ObjectChangedError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from keystow_service.ports import (
    ConditionFailed,
    PartObserver,
    StoredObject,
    StoredRange,
    UnfinishedUpload,
    Upload,
    WriteCondition,
)


class S3Store:
    """An ObjectStore."""

    def __init__(self, bucket: Bucket, parts_in_flight: int) -> None:
        self._bucket = bucket
        self._parts_in_flight = parts_in_flight

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        """See the port."""
        return S3Upload(self._bucket, name, condition, self._parts_in_flight)

    async def begin_resumable(self, name: str, condition: WriteCondition, on_part: PartObserver) -> MultipartUpload:
        """See the port."""
        upload_id = await create(self._bucket, name)
        return MultipartUpload(self._bucket, name, upload_id, condition, self._parts_in_flight, on_part, shared=True)

    async def resume(
        self, name: str, condition: WriteCondition, upload_id: str, parts: PartChain, on_part: PartObserver
    ) -> MultipartUpload:
        """See the port."""
        upload = MultipartUpload(self._bucket, name, upload_id, condition, self._parts_in_flight, on_part, shared=True)
        await upload.take_over(parts)
        return upload

    async def discard(self, name: str, upload_id: str) -> None:
        """See the port."""
        await remove(self._bucket, name, upload_id)

    def unfinished(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        """See the port."""
        return listing.uploads(self._bucket, prefix)

    async def head(self, name: str) -> StoredObject:
        """See the port.

        Asks for the first byte, because the answer to HEAD has no body that could tell a missing object from a missing
        bucket. An empty or archived object has no byte to give, but is there, which leaves no doubt to HEAD.
        """
        with meaning({NO_SUCH_KEY: _not_found()}):
            try:
                return (await self._bucket.repeat(RangedRead(self._bucket, name, 0, 1, None).attempt)).object
            except S3Fault as fault:
                if fault.code not in (INVALID_RANGE, INVALID_OBJECT_STATE):
                    raise
            return await self._head(name)

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> StoredRange:
        """See the port."""
        changed = ObjectChangedError("The stored object was replaced while it was being read. Begin again.")
        answers = {
            NO_SUCH_KEY: _not_found(),
            PRECONDITION_FAILED: changed,
            INVALID_OBJECT_STATE: ObjectArchivedError("The object is archived. Restore it in S3, then read it."),
        }
        with meaning(answers):
            try:
                return await self._bucket.repeat(RangedRead(self._bucket, name, start, length, etag).attempt)
            except S3Fault as fault:
                if fault.code != INVALID_RANGE:
                    raise
            stored = await self._head(name)
        if stored.size > start or etag not in (None, stored.etag):
            raise changed
        return StoredRange(stored, b"")

    async def list(self, prefix: str, *, start_after: str = "", limit: int) -> Sequence[StoredObject]:
        """See the port."""
        return await listing.objects(self._bucket, prefix, start_after, limit)

    async def delete(self, name: str, *, etag: str | None = None) -> None:
        """See the port. S3's own delete does not say whether there was anything."""
        stored = await self.head(name)
        if etag not in (None, stored.etag):
            raise ConditionFailed
        with meaning({PRECONDITION_FAILED: ConditionFailed()}):
            try:
                await self._bucket.repeat(
                    lambda: self._bucket.client.delete_object(
                        Bucket=self._bucket.name, Key=self._bucket.key(name), **pinned(etag)
                    )
                )
            except S3Fault as fault:
                if fault.code == PRECONDITION_FAILED and fault.in_doubt:
                    await self._require_gone(name)
                elif fault.code != NO_SUCH_KEY:  # gone since: by another delete, or by ours, whose answer was lost
                    raise

    async def _require_gone(self, name: str) -> None:
        """After a delete whose answer was lost, and which met another content, or none, when it was sent again."""
        with suppress(ObjectNotFoundError):
            await self.head(name)
            raise StoreUnavailableError(
                "The store did not say whether it deleted the object, and another content has its name by now. Stat it."
            )

    async def _head(self, name: str) -> StoredObject:
        """Of an object that is known to be there."""
        answer = await self._bucket.repeat(
            lambda: self._bucket.client.head_object(Bucket=self._bucket.name, Key=self._bucket.key(name))
        )
        return StoredObject(name, answer["ETag"], answer["ContentLength"], answer["LastModified"].astimezone(UTC))


def _not_found() -> ObjectNotFoundError:
    return ObjectNotFoundError("There is no such object.")
