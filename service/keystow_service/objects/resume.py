"""Going on with an interrupted Put from its resume token, on whatever process the client has reached.

Nothing is remembered here between two streams: the token and the bucket are all there is.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from keystow_service.envelope import resume_token
from keystow_service.envelope.layout import V1, PartPlan
from keystow_service.envelope.resume_token import ResumeState, ResumeToken
from keystow_service.envelope.writer import continue_object
from keystow_service.errors import WrappedKeyInvalidError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.held_key import HeldKey
from keystow_service.model import Caller, ObjectInfo, ObjectKey, Tenant, TenantId, UploadId
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.command import Chunk, Finish, PutCommand, WriteMode
from keystow_service.objects.intake import Intake
from keystow_service.objects.names import object_name
from keystow_service.objects.progress import UPLOAD_LIFETIME, LatestProgress, Progress, ResumePoints, require_time
from keystow_service.objects.standing import RepeatedPut, look
from keystow_service.objects.transfer import PutPolicy, Stream, Transfer
from keystow_service.ports import Absent, Clock, Matches, Sites, TenantRegistry, site_of


@dataclass(frozen=True, slots=True)
class ResumeCommand:
    """One upload to go on with, or to discard."""

    caller: Caller
    tenant_id: TenantId
    key: ObjectKey
    upload_id: UploadId
    token: bytes = field(repr=False)


class ResumePut:
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
        policy: PutPolicy,
    ) -> None:
        self._registry = registry
        self._sites = sites
        self._keys = keys
        self._repeated = repeated
        self._budget = budget
        self._clock = clock
        self._transfer = transfer
        self._policy = policy

    async def __call__(
        self, command: ResumeCommand, content: AsyncIterator[Chunk | Finish], progress: LatestProgress
    ) -> ObjectInfo:
        """Store what ``content`` gives, which begins where the token stands, and answer as the Put would have.

        Raises ResumeTokenInvalid…, UploadExpired…, UploadSuperseded…, TenantNotFound…, OverloadedError, and as
        Transfer.
        """
        tenant = await self._registry.get(command.tenant_id)
        store = site_of(self._sites, tenant).store
        token, put, state, held = await open_token(tenant, command, self._keys.for_resuming)
        core = token.front.header.core
        expire_time = core.create_time + UPLOAD_LIFETIME
        intake = Intake(put, self._policy.max_object_size, before=state.tally, progress=progress)
        standing = await look(store, tenant, command.key)
        if standing is not None and standing.written_by(put):
            progress.publish(Progress(state.tally.size, command.token, expire_time))  # the client may wait for one
            return await self._repeated.answer(tenant, store, standing, put, intake, content)
        require_time(core.create_time, self._clock.now())
        points = ResumePoints(token.stored_front, held, expire_time, progress)
        plan = PartPlan(V1, put.size)
        parts = state.parts.count
        writer = continue_object(
            front=token.front,
            stored_front=token.stored_front,
            data_key=held.data_key.plaintext,
            plan=plan,
            tally=state.tally,
            parts=parts,
            random=os.urandom,
        )
        buffers = self._policy.buffers(plan.segments_in(parts + 1) * V1.sealed_segment)
        async with self._budget.reserve(buffers) as reservation:
            condition = Absent() if state.replaces is None else Matches(state.replaces)
            name = object_name(tenant.tenant_id, command.key)
            upload = await store.resume(name, condition, state.store_upload_id, state.parts, points.durable)
            points.begin(state)
            stream = Stream(put, tenant, store, core, held, writer, intake, upload, upload.stop, points)
            return await self._transfer(stream, content, reservation)


class AbortPut:
    """Discards an unfinished upload; the object that it has become, if it has, stays."""

    def __init__(self, registry: TenantRegistry, sites: Sites, keys: DataKeys) -> None:
        self._registry = registry
        self._sites = sites
        self._keys = keys

    async def __call__(self, command: ResumeCommand) -> None:
        """Raises ResumeTokenInvalidError, TenantNotFoundError, KeyRefusal, Kms… and Store… errors."""
        tenant = await self._registry.get(command.tenant_id)
        _, _, state, _ = await open_token(tenant, command, self._keys.for_opening)
        name = object_name(tenant.tenant_id, command.key)
        await site_of(self._sites, tenant).store.discard(name, state.store_upload_id)


async def open_token(
    tenant: Tenant, command: ResumeCommand, unwrap: Callable[[Tenant, bytes], Awaitable[HeldKey]]
) -> tuple[ResumeToken, PutCommand, ResumeState, HeldKey]:
    """The token, the Put that it goes on with, where that stands, and its data key.

    Raises ResumeTokenInvalidError for what is no token of this upload and this caller; KeyRefusal, Kms… errors.
    """
    token = resume_token.parse(command.token, command.tenant_id, command.key)
    if token.front.header.core.upload_id != command.upload_id:
        raise resume_token.invalid()
    try:
        held = await unwrap(tenant, token.front.header.wrap.wrapped_key)
    except WrappedKeyInvalidError:
        raise resume_token.invalid() from None
    metadata, state = token.open(held.data_key.plaintext)
    put = PutCommand(
        caller=command.caller,
        tenant_id=command.tenant_id,
        key=command.key,
        upload_id=command.upload_id,
        content_type=metadata.content_type,
        metadata=metadata.user,
        size=state.size,
        mode=WriteMode(state.write_mode),
        if_version_id=state.replaces or "" if state.write_mode == WriteMode.IF_VERSION.value else "",
    )
    if (metadata.principal, metadata.put_header_hash) != (command.caller.principal, put.fingerprint()):
        raise resume_token.invalid()
    return token, put, state, held
