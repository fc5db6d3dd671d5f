"""Put: seal a stream of chunks under the tenant's key and commit it whole, or leave nothing but what can be resumed."""

import os
from collections.abc import AsyncIterator

from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, V1, PartPlan
from keystow_service.envelope.resume_token import ResumeState
from keystow_service.envelope.sealing import Metadata
from keystow_service.envelope.writer import begin_object
from keystow_service.keys.data_keys import DataKeys
from keystow_service.model import ObjectInfo, UploadId
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.command import Chunk, Finish, PutCommand, WriteMode
from keystow_service.objects.intake import Intake
from keystow_service.objects.leaving import Leaving
from keystow_service.objects.names import object_name
from keystow_service.objects.progress import UPLOAD_LIFETIME, LatestProgress, ResumePoints
from keystow_service.objects.standing import RepeatedPut, Standing, look
from keystow_service.objects.transfer import PutPolicy, Stream, Transfer, conflict
from keystow_service.ports import (
    Absent,
    Clock,
    Matches,
    Sites,
    TenantRegistry,
    WriteCondition,
    site_of,
)

_COPIES_OF_A_MESSAGE = 3  # as received, as parsed, and sealed


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
        transfer: Transfer,
        leaving: Leaving,
        policy: PutPolicy,
    ) -> None:
        self._registry = registry
        self._sites = sites
        self._keys = keys
        self._repeated = repeated
        self._budget = budget
        self._clock = clock
        self._transfer = transfer
        self._leaving = leaving
        self._policy = policy

    async def __call__(
        self, command: PutCommand, content: AsyncIterator[Chunk | Finish], progress: LatestProgress | None = None
    ) -> ObjectInfo:
        """Store what ``content`` gives up to its Finish. Cancelled or failed, it leaves nothing behind.

        With ``progress`` the upload is resumable: how far it has come is published there, and it stays.

        Raises TenantNotFound…, OverloadedError, and as Transfer.
        """
        tenant = await self._registry.get(command.tenant_id)
        store = site_of(self._sites, tenant).store
        intake = Intake(command, self._policy.max_object_size, progress=progress)
        condition: WriteCondition = Absent()
        replaced: tuple[UploadId, ...] = ()
        if not _commit_tells(command):
            standing = await look(store, tenant, command.key)
            if standing is not None and standing.written_by(command):
                return await self._repeated.answer(tenant, store, standing, command, intake, content)
            condition = _condition(command, standing)
            replaced = standing.lineage if standing is not None else ()
        plan = PartPlan(V1, command.size)
        async with self._budget.reserve(self._buffer_size(plan, command)) as reservation:
            held = await self._keys.for_sealing(tenant)
            core = self._core(command, replaced)
            writer = begin_object(
                core=core,
                metadata=_metadata(command),
                data_key=held.data_key,
                key_arn=tenant.key_arn,
                plan=plan,
                random=os.urandom,
            )
            name = object_name(tenant.tenant_id, command.key)
            if progress is None:
                upload = store.begin(name, condition)
                stream = Stream(command, tenant, store, core, held, writer, intake, upload, upload.abort)
            else:
                points = ResumePoints(writer.front, held, core.create_time + UPLOAD_LIFETIME, progress)
                resumable = await self._leaving.begin(store, name, condition, points.durable)
                replaces = condition.etag if isinstance(condition, Matches) else None
                points.begin(ResumeState(resumable.id, command.size, command.mode.value, replaces))
                stream = Stream(command, tenant, store, core, held, writer, intake, resumable, resumable.stop, points)
            return await self._transfer(stream, content, reservation)

    def _core(self, command: PutCommand, replaced: tuple[UploadId, ...]) -> Core:
        now, deployment_id = self._clock.now(), self._policy.deployment_id
        return Core(command.tenant_id, command.key, command.upload_id, now, deployment_id, replaced)

    def _buffer_size(self, plan: PartPlan, command: PutCommand) -> int:
        """What the Put can need at its start: parts in flight and the one being filled, and a small one's message."""
        part = FRONT_LENGTH + plan.segments_in(1) * V1.sealed_segment + FOOTER_LENGTH
        if plan.size is not None and V1.stored_size(plan.size) <= part:
            return V1.stored_size(plan.size) * (_COPIES_OF_A_MESSAGE if command.at_once else 1)
        return self._policy.buffers(part)


def _commit_tells(command: PutCommand) -> bool:
    """Whether the conditional commit finds out soon enough what stands there, and a look before it can be saved."""
    return command.mode is WriteMode.CREATE and command.at_once


def _condition(command: PutCommand, standing: Standing | None) -> WriteCondition:
    if command.mode is WriteMode.IF_VERSION:
        if standing is None or standing.etag != command.if_version_id:
            raise conflict(command)
    elif command.mode is WriteMode.CREATE and standing is not None:
        raise conflict(command)
    return Matches(standing.etag) if standing is not None else Absent()


def _metadata(command: PutCommand) -> Metadata:
    return Metadata(command.content_type, command.metadata, command.caller.principal, command.fingerprint())
