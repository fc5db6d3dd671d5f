"""One object on its way to S3: a single conditional PutObject, or parts side by side and a conditional Complete.

Only the commit makes anything visible, and it is sent again only after an answer that says that it was not carried
out. An answer that never came is OutcomeUnknown: the caller looks at what stands under the name.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypedDict

from keystow_service.adapters.in_flight import InFlight
from keystow_service.adapters.s3.bucket import Bucket, meaning
from keystow_service.adapters.s3.faults import (
    NO_SUCH_KEY,
    NO_SUCH_UPLOAD,
    PRECONDITION_FAILED,
    S3Fault,
    Verdict,
)
from keystow_service.adapters.s3.retry import COMPLETE, CONDITIONAL
from keystow_service.errors import UploadExpiredError, WriteConflictError
from keystow_service.ports import ConditionFailed, Matches, OutcomeUnknown, StoredObject, WriteCondition

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

_ABORT_ATTEMPTS = 4


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: Literal["*"]


class _Algorithm(TypedDict, total=False):
    ChecksumAlgorithm: Literal["CRC32C"]


class S3Upload:
    """An Upload."""

    def __init__(self, bucket: Bucket, name: str, condition: WriteCondition, parts_in_flight: int) -> None:
        self._bucket = bucket
        self._name = name
        self._condition: _Condition = (
            {"IfMatch": condition.etag} if isinstance(condition, Matches) else {"IfNoneMatch": "*"}
        )
        self._in_flight = InFlight(parts_in_flight)
        self._creation: asyncio.Task[str] | None = None
        self._begun = 0  # parts
        self._size = 0  # bytes of the begun parts
        self._parts: dict[int, CompletedPartTypeDef] = {}
        self._asked_to_complete = False
        self._committed = False

    async def write(self, part: bytearray) -> None:
        """See the port."""
        if self._creation is None:
            self._creation = asyncio.create_task(self._create())
        upload_id = await asyncio.shield(self._creation)  # cancelled in between, abort must learn the id
        self._begun += 1
        self._size += len(part)
        self._send(upload_id, self._begun, part)
        del part  # the task's alone, which lets it go when S3 has it
        await self._in_flight.room()

    async def commit(self, last: bytearray) -> StoredObject:
        """See the port. ``modified`` is this machine's time: S3's own would cost another request."""
        if self._creation is None:
            etag = await self._put(last)
        else:
            etag = await self._complete(await asyncio.shield(self._creation), last)
        self._committed = True
        return StoredObject(self._name, etag, self._size + len(last), datetime.now(UTC))

    async def abort(self) -> None:
        """See the port. A part whose bytes had all arrived may land after the abort, so look and abort again.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
        """
        self._in_flight.cancel()
        await self._in_flight.ended()
        if self._creation is None or self._committed:
            return
        try:
            await asyncio.wait([self._creation])
        finally:
            self._creation.cancel()
        if self._creation.cancelled() or self._creation.exception() is not None:
            return
        with meaning({}):
            await self._remove(self._creation.result())

    async def _create(self) -> str:
        algorithm: _Algorithm = {"ChecksumAlgorithm": "CRC32C"} if self._bucket.checksums else {}
        with meaning({}):
            answer = await self._bucket.repeat(
                lambda: self._bucket.client.create_multipart_upload(
                    Bucket=self._bucket.name, Key=self._key, **algorithm
                )
            )
        return answer["UploadId"]

    def _send(self, upload_id: str, number: int, part: bytearray) -> None:
        self._in_flight.add(number, asyncio.create_task(self._upload(upload_id, number, part)), len(part))

    async def _upload(self, upload_id: str, number: int, part: bytearray) -> None:
        """One part, the same bytes at each attempt."""
        checksum = self._bucket.checksum(part)
        with meaning({NO_SUCH_UPLOAD: _expired()}):
            answer = await self._bucket.repeat(
                lambda: self._bucket.client.upload_part(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=part,  # type: ignore[arg-type] # the stubs do not know that bytearray is taken
                    **checksum,
                )
            )
        done: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        self._parts[number] = {**done, **checksum}

    async def _put(self, data: bytearray) -> str:
        checksum = self._bucket.checksum(data)
        with _commit_answers():
            answer = await self._bucket.retries.call(
                lambda: self._bucket.client.put_object(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    Body=data,  # type: ignore[arg-type] # the stubs do not know that bytearray is taken
                    **checksum,
                    **self._condition,
                ),
                CONDITIONAL,
            )
        return answer["ETag"]

    async def _complete(self, upload_id: str, last: bytearray) -> str:
        """Called again, it sends only what has not arrived."""
        number = self._begun + 1
        if number not in self._parts:
            self._send(upload_id, number, last)
        await self._in_flight.settled()
        parts = [self._parts[number] for number in sorted(self._parts)]
        first, self._asked_to_complete = not self._asked_to_complete, True
        with _commit_answers():
            try:
                answer = await self._bucket.retries.call(
                    lambda: self._bucket.client.complete_multipart_upload(
                        Bucket=self._bucket.name,
                        Key=self._key,
                        UploadId=upload_id,
                        MultipartUpload={"Parts": parts},
                        **self._condition,
                    ),
                    COMPLETE,
                )
            except S3Fault as fault:
                if fault.code != NO_SUCH_UPLOAD:
                    raise
                # Asked before without an answer, that may have been carried out, and have ended the upload.
                raise (_expired() if first else OutcomeUnknown()) from None
        return answer["ETag"]

    async def _remove(self, upload_id: str) -> None:
        """Raises S3Fault."""
        try:
            for attempt in range(1, _ABORT_ATTEMPTS + 1):
                await self._bucket.repeat(
                    lambda: self._bucket.client.abort_multipart_upload(
                        Bucket=self._bucket.name, Key=self._key, UploadId=upload_id
                    )
                )
                left = await self._bucket.repeat(
                    lambda: self._bucket.client.list_parts(Bucket=self._bucket.name, Key=self._key, UploadId=upload_id)
                )
                if not left.get("Parts"):
                    return
                await asyncio.sleep(self._bucket.retries.delay(attempt))
        except S3Fault as fault:
            if fault.code != NO_SUCH_UPLOAD:
                raise

    @property
    def _key(self) -> str:
        return self._bucket.key(self._name)


@contextmanager
def _commit_answers() -> Iterator[None]:
    """What S3's answers mean to a commit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html)."""
    try:
        yield
    except S3Fault as fault:
        if fault.code in (PRECONDITION_FAILED, NO_SUCH_KEY):  # NoSuchKey: If-Match, and nothing stands there
            raise ConditionFailed from None
        if fault.verdict is Verdict.CONFLICT:
            raise WriteConflictError("Another write or delete of the object was under way. Begin again.") from None
        if fault.verdict is Verdict.UNKNOWN:
            raise OutcomeUnknown from None
        raise fault.error from None


def _expired() -> UploadExpiredError:
    return UploadExpiredError("The store no longer knows the upload: it was aborted, or its time is over. Begin again.")
