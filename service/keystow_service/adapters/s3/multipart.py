"""One multipart upload: parts sent side by side, then a conditional Complete of exactly this writer's parts.

Only Complete makes anything visible, and it is sent again only after an answer that says that it was not carried out.
An answer that never came is OutcomeUnknown, one that what stands belies WriteConflictError: then the caller looks.
An answer alone is not proof where another may have committed the same upload: S3 answers every Complete of an upload
after the first as it did that, whatever parts they name.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypedDict

from keystow_service.adapters.in_flight import InFlight
from keystow_service.adapters.s3.bucket import Bucket, meaning
from keystow_service.adapters.s3.commit import arguments, commit_answers, expired, superseded
from keystow_service.adapters.s3.faults import NO_SUCH_KEY, NO_SUCH_UPLOAD, PRECONDITION_FAILED, S3Fault
from keystow_service.adapters.s3.listing import endless
from keystow_service.adapters.s3.reading import RangedRead
from keystow_service.adapters.s3.retry import COMPLETE
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import KeystowError, StoreUnavailableError, WriteConflictError
from keystow_service.ports import OutcomeUnknown, PartObserver, Permit, StoredObject, WriteCondition, always

if TYPE_CHECKING:  # the stubs are a development dependency
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        CompleteMultipartUploadOutputTypeDef,
        ListPartsOutputTypeDef,
        PartTypeDef,
    )

_ABORT_ATTEMPTS = 4
_TAIL = 128  # bytes; more than an object's footer, which no other writer seals alike


class _Algorithm(TypedDict, total=False):
    ChecksumAlgorithm: Literal["CRC32C"]


class MultipartUpload:
    """A ResumableUpload."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        upload_id: str,
        condition: WriteCondition,
        parts_in_flight: int,
        on_part: PartObserver,
        *,
        shared: bool,
    ) -> None:
        """``shared`` says that others may go on with the upload, too."""
        self.id = upload_id
        self._bucket = bucket
        self._name = name
        self._key = bucket.key(name)
        self._condition = arguments(condition)
        self._on_part = on_part
        self._in_flight = InFlight(parts_in_flight)
        self._begun = 0  # parts
        self._size = 0  # bytes of the begun parts
        self._parts: dict[int, CompletedPartTypeDef] = {}
        self._asked_to_complete = False
        # versitygw 1.8.0 answers 200 for an upload that is gone, as long as any object stands there.
        self._confirms = shared or bucket.confirm_complete

    async def take_over(self, parts: PartChain) -> None:
        """See ObjectStore.resume."""
        found = PartChain()
        async with aclosing(self._list(parts.count)) as listed:
            async for part in listed:
                if part["PartNumber"] != found.count + 1:
                    raise superseded()
                found = found.after(part["ETag"], part["Size"])
                done: CompletedPartTypeDef = {"PartNumber": found.count, "ETag": part["ETag"]}
                if "ChecksumCRC32C" in part:
                    done["ChecksumCRC32C"] = part["ChecksumCRC32C"]
                self._parts[found.count] = done
                self._size += part["Size"]
        if found != parts:
            raise superseded()
        self._begun = parts.count

    async def write(self, part: bytearray) -> None:
        """See the port."""
        self._begun += 1
        self._size += len(part)
        self._send(self._begun, part)
        del part  # the task's alone, which lets it go when S3 has it
        await self._in_flight.room()

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """See the port. Called again, it sends only what has not arrived.

        ``modified`` is this machine's time: S3's own would cost another request.
        """
        number = self._begun + 1
        if number not in self._parts:
            self._send(number, last)
        await self._in_flight.settled()
        parts = [self._parts[number] for number in sorted(self._parts)]
        first, self._asked_to_complete = not self._asked_to_complete, True

        async def complete() -> "CompleteMultipartUploadOutputTypeDef":
            await permit()
            return await self._bucket.client.complete_multipart_upload(
                Bucket=self._bucket.name,
                Key=self._key,
                UploadId=self.id,
                MultipartUpload={"Parts": parts},
                **self._condition,
            )

        with commit_answers():
            try:
                answer = await self._bucket.retries.call(complete, COMPLETE)
            except S3Fault as fault:
                if fault.code != NO_SUCH_UPLOAD:
                    raise
                # Asked before without an answer, that may have been carried out, and have ended the upload.
                raise (expired() if first else OutcomeUnknown()) from None
        stored = StoredObject(self._name, answer["ETag"], self._size + len(last), datetime.now(UTC))
        if self._confirms:
            await self._confirm(stored, last[-_TAIL:])
        return stored

    async def stop(self) -> None:
        """See the port."""
        self._in_flight.cancel()
        await self._in_flight.ended()

    async def _confirm(self, stored: StoredObject, tail: bytearray) -> None:
        """Raises WriteConflictError, OutcomeUnknown unless what stands ends as this writer's last part does."""
        ending = RangedRead(self._bucket, self._name, stored.size - len(tail), len(tail), stored.etag)
        try:
            found = await self._bucket.repeat(ending.attempt)
        except S3Fault as fault:
            if fault.code in (PRECONDITION_FAILED, NO_SUCH_KEY):
                raise _other_content() from None
            raise OutcomeUnknown from None
        except KeystowError:
            raise OutcomeUnknown from None
        if found.object.size != stored.size or found.data != tail:
            raise _other_content()

    def _send(self, number: int, part: bytearray) -> None:
        self._in_flight.add(number, asyncio.create_task(self._upload(number, part)), len(part))

    async def _upload(self, number: int, part: bytearray) -> None:
        """One part, the same bytes at each attempt."""
        checksum = self._bucket.checksum(part)
        with meaning({NO_SUCH_UPLOAD: expired()}):
            answer = await self._bucket.repeat(
                lambda: self._bucket.client.upload_part(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    UploadId=self.id,
                    PartNumber=number,
                    Body=part,  # type: ignore[arg-type] # the stubs do not know that bytearray is taken
                    **checksum,
                )
            )
        done: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        self._parts[number] = {**done, **checksum}
        self._on_part(number, answer["ETag"], len(part))

    async def _list(self, count: int) -> AsyncGenerator["PartTypeDef", None]:
        """The first ``count`` parts that S3 has; with none asked for, only whether it has the upload."""
        after = 0
        while True:
            page = await self._page(after)
            parts = page.get("Parts", [])
            for part in parts:
                if part["PartNumber"] > count:
                    return
                yield part
            last = parts[-1]["PartNumber"] if parts else page.get("NextPartNumberMarker", 0)
            if last >= count or not page.get("IsTruncated"):
                return
            if last <= after:
                raise endless()
            after = last

    async def _page(self, after: int) -> "ListPartsOutputTypeDef":
        with meaning({NO_SUCH_UPLOAD: expired()}):
            return await self._bucket.repeat(
                lambda: self._bucket.client.list_parts(
                    Bucket=self._bucket.name, Key=self._key, UploadId=self.id, PartNumberMarker=after
                )
            )


def _other_content() -> WriteConflictError:
    return WriteConflictError("The object was replaced or deleted as it was stored, or never was. Begin again.")


async def create(bucket: Bucket, name: str) -> str:
    """Begin a multipart upload; its id. Raises Store… errors."""
    algorithm: _Algorithm = {"ChecksumAlgorithm": "CRC32C"} if bucket.checksums else {}
    with meaning({}):
        answer = await bucket.repeat(
            lambda: bucket.client.create_multipart_upload(Bucket=bucket.name, Key=bucket.key(name), **algorithm)
        )
    return answer["UploadId"]


async def remove(bucket: Bucket, name: str, upload_id: str) -> None:
    """Abort a multipart upload, if there is one. Raises Store… errors.

    A part whose bytes had all arrived may land after the abort, so look and abort again.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
    """
    key = bucket.key(name)
    with meaning({}):
        try:
            for attempt in range(1, _ABORT_ATTEMPTS + 1):
                await bucket.repeat(
                    lambda: bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)
                )
                left = await bucket.repeat(
                    lambda: bucket.client.list_parts(Bucket=bucket.name, Key=key, UploadId=upload_id)
                )
                if not left.get("Parts") and not left.get("IsTruncated"):
                    return
                await asyncio.sleep(bucket.retries.delay(attempt))
            raise StoreUnavailableError("The store goes on having parts of an aborted upload. Abort it again later.")
        except S3Fault as fault:
            if fault.code != NO_SUCH_UPLOAD:
                raise
