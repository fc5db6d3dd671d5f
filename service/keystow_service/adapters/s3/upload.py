"""One object on its way to S3 that is not resumed: a single conditional PutObject, or a multipart upload.

Which of the two is settled by the first part that is not the last. Nothing is left behind by an upload that is aborted.
"""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keystow_service.adapters.s3.bucket import Bucket
from keystow_service.adapters.s3.commit import arguments, commit_answers
from keystow_service.adapters.s3.multipart import MultipartUpload, create, remove
from keystow_service.adapters.s3.retry import CONDITIONAL
from keystow_service.ports import Permit, StoredObject, WriteCondition, always

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3.type_defs import PutObjectOutputTypeDef


class S3Upload:
    """An Upload."""

    def __init__(self, bucket: Bucket, name: str, condition: WriteCondition, parts_in_flight: int) -> None:
        self._bucket = bucket
        self._name = name
        self._condition = condition
        self._parts_in_flight = parts_in_flight
        self._creation: asyncio.Task[MultipartUpload] | None = None
        self._committed = False

    async def write(self, part: bytearray) -> None:
        """See the port."""
        if self._creation is None:
            self._creation = asyncio.create_task(self._create())
        multipart = await asyncio.shield(self._creation)  # cancelled in between, abort must learn the id
        writing = multipart.write(part)
        del part
        await writing

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """See the port. ``modified`` is this machine's time: S3's own would cost another request."""
        if self._creation is None:
            stored = await self._put(last, permit)
        else:
            stored = await (await asyncio.shield(self._creation)).commit(last, permit)
        self._committed = True
        return stored

    async def abort(self) -> None:
        """See the port."""
        if self._creation is None:
            return
        try:
            await asyncio.wait([self._creation])
        finally:
            self._creation.cancel()
        if self._creation.cancelled() or self._creation.exception() is not None:
            return
        multipart = self._creation.result()
        await multipart.stop()
        if not self._committed:
            await remove(self._bucket, self._name, multipart.id)

    async def _create(self) -> MultipartUpload:
        upload_id = await create(self._bucket, self._name)
        return MultipartUpload(
            self._bucket,
            self._name,
            upload_id,
            self._condition,
            self._parts_in_flight,
            lambda *_: None,
            shared=False,
        )

    async def _put(self, data: bytearray, permit: Permit) -> StoredObject:
        checksum = self._bucket.checksum(data)

        async def put() -> "PutObjectOutputTypeDef":
            await permit()
            return await self._bucket.client.put_object(
                Bucket=self._bucket.name,
                Key=self._bucket.key(self._name),
                Body=data,  # type: ignore[arg-type] # the stubs do not know that bytearray is taken
                **checksum,
                **arguments(self._condition),
            )

        with commit_answers():
            answer = await self._bucket.retries.call(put, CONDITIONAL)
        return StoredObject(self._name, answer["ETag"], len(data), datetime.now(UTC))
