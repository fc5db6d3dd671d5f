"""Export: many objects as one archive, each verified before it is sent.

The objects of the selection are opened ahead, in their order: found, their first ciphertext read, their data keys
unwrapped. What they hold is opened under the lease when their turn to be sent has come. After so many objects or bytes
a manifest tells what the archive holds since the last one, and a checkpoint lets the caller go on from there.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from keystow_service.envelope import checkpoint
from keystow_service.envelope.checkpoint import ExportPosition, SealedCheckpoint
from keystow_service.errors import WrappedKeyInvalidError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.held_key import HeldKey, KeyInUse
from keystow_service.model import Tenant
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.command import Chunk
from keystow_service.objects.export.command import ArchiveFormat, ExportCommand, Prefix
from keystow_service.objects.export.pieces import Checkpoint, Entry, Summary
from keystow_service.objects.export.run import ExportPolicy, ExportRun, buffers
from keystow_service.objects.export.selection import more_than, selected
from keystow_service.objects.export.zip import MAX_MEMBERS, too_many
from keystow_service.objects.list import ListObjects
from keystow_service.objects.opening import ObjectOpening
from keystow_service.ports import TenantRegistry


class ExportObjects:
    """See the module."""

    def __init__(
        self,
        registry: TenantRegistry,
        listing: ListObjects,
        opening: ObjectOpening,
        keys: DataKeys,
        budget: BufferBudget,
        policy: ExportPolicy,
    ) -> None:
        self._registry = registry
        self._listing = listing
        self._opening = opening
        self._keys = keys
        self._budget = budget
        self._policy = policy

    async def __call__(
        self, command: ExportCommand, in_use: KeyInUse
    ) -> AsyncGenerator[Chunk | Entry | Checkpoint | Summary, None]:
        """Chunks of the archive, each object's Entry after its last Chunk, Checkpoints, the Summary.

        ``in_use`` is told the key that they stand under. Close it if you leave early.

        Raises TenantNotFoundError, CheckpointTokenInvalidError, RequestInvalidError (a zip archive is full),
        OverloadedError, KeyRefusal, Kms… and Store… errors; with ErrorPolicy.STOP also what is wrong with an object,
        and with CONTINUE that only after some of it has been sent.
        """
        tenant = await self._registry.get(command.tenant_id)
        position, in_use.held = await self._begin(tenant, command)
        if command.format is ArchiveFormat.ZIP and isinstance(command.selection, Prefix):
            limit = MAX_MEMBERS - 1  # the manifest is one
            if await more_than(limit, self._listing, command.tenant_id, command.selection.text):
                raise too_many(MAX_MEMBERS)
        async with self._budget.reserve(buffers(self._policy)) as reservation:
            run = ExportRun(self._opening, self._policy, tenant, command, position, in_use, reservation)
            async with aclosing(run.objects(selected(self._listing, command, position))) as pieces:
                async for piece in pieces:
                    yield piece
            async with aclosing(run.finish()) as chunks:
                async for chunk in chunks:
                    yield chunk
        yield Summary(run.position, run.archive.size, run.archive.crc32c)

    async def _begin(self, tenant: Tenant, command: ExportCommand) -> tuple[ExportPosition, HeldKey | None]:
        """Where to start, and the data key of the token that says so."""
        if not command.checkpoint_token:
            return ExportPosition(), None
        sealed = SealedCheckpoint.parse(command.checkpoint_token, command.scope())
        try:
            key = await self._keys.for_opening(tenant, sealed.wrapped_key)
        except WrappedKeyInvalidError:
            raise checkpoint.invalid() from None
        return sealed.open(key.data_key.plaintext), key
