"""Put: seal a stream of chunks under the tenant's key and commit it whole, or leave nothing.

The bytes' way: chunk → intake (order, checksums) → part writer (segments sealed into the part) → upload (parts in
flight) → conditional commit. The lease is held before every segment and before the commit.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, MIN_PART_SIZE, V1, PartPlan
from keystow_service.envelope.sealing import Metadata
from keystow_service.envelope.writer import PartWriter, begin_object
from keystow_service.errors import (
    KeystowError,
    ObjectExistsError,
    StoreUnavailableError,
    VersionMismatchError,
    WriteConflictError,
)
from keystow_service.keys.leases import DataKeys, HeldKey
from keystow_service.model import ObjectInfo, Tenant
from keystow_service.objects.budget import BufferBudget, Reservation
from keystow_service.objects.command import Chunk, Finish, PutCommand, WriteMode
from keystow_service.objects.intake import Intake
from keystow_service.objects.names import object_name
from keystow_service.objects.standing import RepeatedPut, Standing, look
from keystow_service.ports import (
    Absent,
    Clock,
    ConditionFailed,
    Matches,
    OutcomeUnknown,
    Sites,
    StoredObject,
    TenantRegistry,
    Upload,
    WriteCondition,
    site_of,
)

log = structlog.get_logger(__name__)

_COMMIT_ATTEMPTS = 4
_ABORT_TIMEOUT = 10.0
_COPIES_OF_A_MESSAGE = 3  # as received, as parsed, and sealed


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """What holds for every Put. ``max_object_size`` in bytes, ``commit_pause`` in seconds."""

    deployment_id: str
    max_object_size: int
    parts_in_flight: int
    commit_pause: float = 0.2


class PutObject:
    """See the module."""

    def __init__(
        self,
        registry: TenantRegistry,
        sites: Sites,
        keys: DataKeys,
        repeated: RepeatedPut,
        budget: BufferBudget,
        clock: Clock,
        policy: PutPolicy,
    ) -> None:
        self._registry = registry
        self._sites = sites
        self._keys = keys
        self._repeated = repeated
        self._budget = budget
        self._clock = clock
        self._policy = policy
        self._aborts: set[asyncio.Task[None]] = set()

    async def __call__(self, command: PutCommand, content: AsyncIterator[Chunk | Finish]) -> ObjectInfo:
        """Store what ``content`` gives up to its Finish. Cancelled or failed, it leaves nothing behind.

        Raises TenantNotFound…, ObjectExists…, VersionMismatch…, WriteConflict…, UploadIdReused…, OverloadedError, the
        errors of Intake, KeyRefusal, Kms… and Store… errors.
        """
        tenant = await self._registry.get(command.tenant_id)
        store = site_of(self._sites, tenant).store
        intake = Intake(command, self._policy.max_object_size)
        condition: WriteCondition = Absent()
        if not _commit_tells(command):
            standing = await look(store, tenant, command.key)
            if standing is not None and standing.written_by(command):
                return await self._repeated.answer(tenant, store, standing, command, intake, content)
            condition = _condition(command, standing)
        plan = PartPlan(V1, command.size)
        async with (
            self._budget.reserve(self._buffer_size(plan, command)) as reservation,
            self._aborted_on_failure(store.begin(object_name(tenant.tenant_id, command.key), condition)) as upload,
        ):
            held = await self._keys.for_sealing(tenant)
            core = self._core(command)
            writer = begin_object(
                core=core,
                metadata=_metadata(command),
                data_key=held.data_key,
                key_arn=tenant.key_arn,
                plan=plan,
                random=os.urandom,
            )
            await self._fill(writer, upload, held, intake, content, reservation)
            await held.hold()
            last = writer.finish(intake.sha256)
            committed = await self._commit(upload, last, held, lambda: look(store, tenant, command.key), command)
            if isinstance(committed, StoredObject):
                return _info(command, core, tenant, intake, committed)
            await self._abort(upload)  # another stream of the same upload may have been the one that committed
        return await self._repeated.confirm(tenant, store, committed, command, intake)

    async def _commit(
        self,
        upload: Upload,
        last: bytearray,
        held: HeldKey,
        look_again: Callable[[], Awaitable[Standing | None]],
        command: PutCommand,
    ) -> StoredObject | Standing:
        """Commit once. After an answer that was lost or is in doubt, look before doing anything else.

        Gives what was committed now, or what stands there of this very upload from a commit whose answer was lost.
        """
        for attempt in range(_COMMIT_ATTEMPTS):
            if attempt:
                pause = self._policy.commit_pause * random.uniform(1, 2) * 2**attempt  # noqa: S311 - jitter
                await asyncio.sleep(pause)
            await held.hold()
            try:
                return await upload.commit(last)
            except ConditionFailed:
                refused = True
            except OutcomeUnknown:
                refused = False
            standing = await look_again()
            if standing is not None and standing.written_by(command):
                return standing
            if refused:
                raise _conflict(command)
        raise StoreUnavailableError(
            "The store did not say whether the object was committed. Repeat the Put with its upload_id: "
            "it answers what stands, or stores the object."
        )

    def _core(self, command: PutCommand) -> Core:
        now, deployment_id = self._clock.now(), self._policy.deployment_id
        return Core(command.tenant_id, command.key, command.upload_id, now, deployment_id)

    async def aclose(self) -> None:
        """Wait for the uploads that are being aborted."""
        await asyncio.gather(*self._aborts, return_exceptions=True)

    async def _fill(
        self,
        writer: PartWriter,
        upload: Upload,
        held: HeldKey,
        intake: Intake,
        content: AsyncIterator[Chunk | Finish],
        reservation: Reservation,
    ) -> None:
        """Seal everything that comes. Full parts go to the store, which makes this wait while many are in flight."""
        part_size = 0
        async for message in content:
            if isinstance(message, Finish):
                intake.finish(message)
                return
            checksum = intake.take(message)
            start = 0
            while start < len(message.data):
                if (part := writer.take_full_part()) is not None:
                    if len(part) > part_size:  # without a declared size parts grow
                        part_size = len(part)
                        reservation.resize(self._buffers_for(part_size))
                    await upload.write(part)
                await held.hold()
                start += writer.feed(message.data, start, crc32c=checksum)

    def _buffer_size(self, plan: PartPlan, command: PutCommand) -> int:
        """What the Put can need at its start: parts in flight and the one being filled, and a small one's message."""
        part = FRONT_LENGTH + plan.segments_in(1) * V1.sealed_segment + FOOTER_LENGTH
        if plan.size is not None and V1.stored_size(plan.size) <= part:
            return V1.stored_size(plan.size) * (_COPIES_OF_A_MESSAGE if command.at_once else 1)
        return self._buffers_for(part)

    def _buffers_for(self, part_size: int) -> int:
        """As many parts of the usual size as may be in flight, or one larger one; and the one being filled."""
        return max(part_size + self._policy.parts_in_flight * MIN_PART_SIZE, 2 * part_size)

    @asynccontextmanager
    async def _aborted_on_failure(self, upload: Upload) -> AsyncIterator[Upload]:
        try:
            yield upload
        except BaseException:
            await self._abort(upload)
            raise

    async def _abort(self, upload: Upload) -> None:
        """Remove every trace, also while this very task is being cancelled, but not for ever."""

        async def abort() -> None:
            try:
                async with asyncio.timeout(_ABORT_TIMEOUT):
                    await upload.abort()
            except Exception as error:  # noqa: BLE001 - it must not stand in the place of what ended the Put
                log.warning("upload_not_aborted", reason=getattr(error, "reason", type(error).__name__))

        task = asyncio.create_task(abort())
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)
        await asyncio.shield(task)


def _commit_tells(command: PutCommand) -> bool:
    """Whether the conditional commit finds out soon enough what stands there, and a look before it can be saved."""
    return command.mode is WriteMode.CREATE and command.at_once


def _condition(command: PutCommand, standing: Standing | None) -> WriteCondition:
    if command.mode is WriteMode.IF_VERSION:
        if standing is None or standing.etag != command.if_version_id:
            raise _conflict(command)
    elif command.mode is WriteMode.CREATE and standing is not None:
        raise _conflict(command)
    return Matches(standing.etag) if standing is not None else Absent()


def _conflict(command: PutCommand) -> KeystowError:
    """Something else stands at the key than may."""
    match command.mode:
        case WriteMode.CREATE:
            return ObjectExistsError("An object has this key. Use another key, or WRITE_MODE_OVERWRITE to replace it.")
        case WriteMode.IF_VERSION:
            return VersionMismatchError("The current version is another than if_version_id. Stat it and decide anew.")
        case WriteMode.OVERWRITE:
            return WriteConflictError("The object was replaced or deleted while this Put ran. Put it again.")


def _metadata(command: PutCommand) -> Metadata:
    return Metadata(command.content_type, command.metadata, command.caller.principal, command.fingerprint())


def _info(command: PutCommand, core: Core, tenant: Tenant, intake: Intake, stored: StoredObject) -> ObjectInfo:
    return ObjectInfo(
        tenant_id=command.tenant_id,
        key=command.key,
        version_id=stored.etag,
        size=intake.size,
        stored_size=stored.size,
        create_time=core.create_time,
        crc32c=intake.crc32c,
        sha256=intake.sha256,
        content_type=command.content_type,
        metadata=command.metadata,
        kms_key_arn=tenant.key_arn.text,
    )
