"""From a stream of chunks to a committed object: what a new Put and a resumed one have in common.

The bytes' way: chunk → intake (order, checksums) → part writer (segments sealed into the part) → upload (parts in
flight) → conditional commit. The lease is held before every segment and before the commit.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import MIN_PART_SIZE
from keystow_service.envelope.writer import PartWriter
from keystow_service.errors import (
    KeystowError,
    ObjectExistsError,
    StoreUnavailableError,
    UploadExpiredError,
    VersionMismatchError,
    WriteConflictError,
)
from keystow_service.keys.held_key import HeldKey
from keystow_service.model import ObjectInfo, Tenant
from keystow_service.objects.budget import Reservation
from keystow_service.objects.command import Chunk, Finish, PutCommand, WriteMode
from keystow_service.objects.intake import Intake
from keystow_service.objects.leaving import Leaving
from keystow_service.objects.progress import ResumePoints, require_time
from keystow_service.objects.standing import RepeatedPut, Standing, look
from keystow_service.ports import (
    Clock,
    ConditionFailed,
    ObjectStore,
    OutcomeUnknown,
    ResumableUpload,
    StoredObject,
    Upload,
)

_COMMIT_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """What holds for every Put. ``max_object_size`` in bytes, ``commit_pause`` in seconds."""

    deployment_id: str
    max_object_size: int
    parts_in_flight: int
    commit_pause: float = 0.2

    def buffers(self, part_size: int) -> int:
        """As many parts of the usual size as may be in flight, or one larger one; and the one being filled."""
        return max(part_size + self.parts_in_flight * MIN_PART_SIZE, 2 * part_size)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one stream of a Put works with."""

    command: PutCommand
    tenant: Tenant
    store: ObjectStore
    core: Core
    held: HeldKey
    writer: PartWriter
    intake: Intake
    upload: Upload | ResumableUpload
    leave: Callable[[], Awaitable[None]]  # the upload, when the stream ends without a commit
    points: ResumePoints | None = None  # where the upload is resumable


class Transfer:
    """See the module."""

    def __init__(self, repeated: RepeatedPut, leaving: Leaving, clock: Clock, policy: PutPolicy) -> None:
        self._repeated = repeated
        self._leaving = leaving
        self._clock = clock
        self._policy = policy

    async def __call__(
        self,
        stream: Stream,
        content: AsyncIterator[Chunk | Finish],
        reservation: Reservation,
    ) -> ObjectInfo:
        """Store what ``content`` gives up to its Finish, and answer what was stored.

        Raises ObjectExists…, VersionMismatch…, WriteConflict…, UploadIdReused…, UploadExpired…, UploadSuperseded…, the
        errors of Intake, KeyRefusal, Kms… and Store… errors.
        """
        committed: StoredObject | Standing | None = None
        try:
            await self._fill(stream, content, reservation)
            await stream.held.hold()
            committed = await self._commit(stream, stream.writer.finish(stream.intake.sha256))
        finally:
            if not isinstance(committed, StoredObject):
                await self._leaving.leave(stream.leave)
        if isinstance(committed, StoredObject):
            return _info(stream, committed)
        return await self._repeated.confirm(stream.tenant, stream.store, committed, stream.command, stream.intake)

    async def _fill(
        self,
        stream: Stream,
        content: AsyncIterator[Chunk | Finish],
        reservation: Reservation,
    ) -> None:
        """Seal everything that comes. Full parts go to the store, which makes this wait while many are in flight."""
        intake, writer, points = stream.intake, stream.writer, stream.points
        part_size = 0
        while True:
            with stream.held.waiting():
                message = await anext(content)
            require_time(stream.core.create_time, self._clock.now())
            if isinstance(message, Finish):
                intake.finish(message)
                return
            checksum = intake.take(message)
            start = 0
            while start < len(message.data):
                if (part := writer.take_full_part()) is not None:
                    if len(part) > part_size:  # without a declared size parts grow
                        part_size = len(part)
                        reservation.resize(self._policy.buffers(part_size))
                    if points is not None:
                        points.handing_over(writer.tally)
                    await stream.upload.write(part)
                await stream.held.hold()
                start += writer.feed(message.data, start, crc32c=checksum)

    async def _commit(self, stream: Stream, last: bytearray) -> StoredObject | Standing:
        """Commit once. After an answer that was lost or is in doubt, look before doing anything else.

        Gives what was committed now, or what stands there of this very upload: of a commit whose answer was lost, or
        of another stream that continued it.
        """
        command = stream.command
        for attempt in range(_COMMIT_ATTEMPTS):
            if attempt:
                pause = self._policy.commit_pause * random.uniform(1, 2) * 2**attempt  # noqa: S311 - jitter
                await asyncio.sleep(pause)
            refusal: KeystowError | None = None
            try:
                return await stream.upload.commit(last, stream.held.hold)
            except ConditionFailed:
                refusal = conflict(command)
            except (UploadExpiredError, WriteConflictError) as error:
                refusal = error
            except OutcomeUnknown:
                pass
            standing = await look(stream.store, stream.tenant, command.key)
            if standing is not None and standing.written_by(command):
                return standing
            if refusal is not None:
                raise refusal
        raise StoreUnavailableError(
            "The store did not say whether the object was committed. Repeat the Put with its upload_id: "
            "it answers what stands, or stores the object."
        )


def conflict(command: PutCommand) -> KeystowError:
    """Something else stands at the key than may."""
    match command.mode:
        case WriteMode.CREATE:
            return ObjectExistsError("An object has this key. Use another key, or WRITE_MODE_OVERWRITE to replace it.")
        case WriteMode.IF_VERSION:
            return VersionMismatchError("The current version is another than if_version_id. Stat it and decide anew.")
        case WriteMode.OVERWRITE:
            return WriteConflictError("The object was replaced or deleted while this Put ran. Put it again.")


def _info(stream: Stream, stored: StoredObject) -> ObjectInfo:
    command, intake = stream.command, stream.intake
    return ObjectInfo(
        tenant_id=command.tenant_id,
        key=command.key,
        version_id=stored.etag,
        size=intake.size,
        stored_size=stored.size,
        create_time=stream.core.create_time,
        crc32c=intake.crc32c,
        sha256=intake.sha256,
        content_type=command.content_type,
        metadata=command.metadata,
        kms_key_arn=stream.tenant.key_arn.text,
    )
