"""What stands at a key: whether a Put may replace it, and whether it is that very Put's own object already.

Keeps the promise that a Put repeated with its upload_id stores one object and gets one answer, whether the first answer
was lost on the way to the client or on the way from the store; and that it is not stored over what has replaced it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from keystow_service.envelope.layout import FRONT_LENGTH
from keystow_service.envelope.reader import Front, read_front
from keystow_service.errors import (
    ObjectArchivedError,
    ObjectFormatUnsupportedError,
    ObjectHeaderInvalidError,
    ObjectNotFoundError,
    ObjectTamperedError,
    ObjectTruncatedError,
    UploadIdReusedError,
    UploadReplacedError,
)
from keystow_service.keys.held_key import HeldKey
from keystow_service.model import ObjectInfo, ObjectKey, Tenant, UploadId
from keystow_service.objects.command import Chunk, Finish, PutCommand
from keystow_service.objects.intake import Intake
from keystow_service.objects.names import object_name
from keystow_service.objects.opening import ObjectOpening
from keystow_service.ports import ObjectStore, StoredRange

_DAMAGED = (ObjectTruncatedError, ObjectHeaderInvalidError, ObjectFormatUnsupportedError, ObjectTamperedError)


@dataclass(frozen=True, slots=True)
class Standing:
    """An object in the store, as far as it says in clear. ``front`` is None where it is damaged or archived."""

    found: StoredRange
    front: Front | None

    @property
    def etag(self) -> str:
        """Of the stored content."""
        return self.found.object.etag

    @property
    def lineage(self) -> tuple[UploadId, ...]:
        """Of which upload it claims to be, and of which those were that it has followed, newest first."""
        return () if self.front is None else (self.front.header.core.upload_id, *self.front.header.core.replaced)

    def written_by(self, command: PutCommand) -> bool:
        """Whether it claims to be of this upload; ``confirm`` finds out. Raises UploadReplacedError."""
        if command.upload_id in self.lineage[1:]:
            raise UploadReplacedError(
                "An object was stored under this upload_id, and has been replaced since. To replace what stands now, "
                "give the Put an upload_id of its own."
            )
        return command.upload_id in self.lineage


async def look(store: ObjectStore, tenant: Tenant, key: ObjectKey) -> Standing | None:
    """What stands at the key now, or None. Raises Store… errors."""
    try:
        found = await store.read(object_name(tenant.tenant_id, key), 0, FRONT_LENGTH)
    except ObjectNotFoundError:
        return None
    except ObjectArchivedError:  # no reader gets at it, but it stands, and may be replaced
        return Standing(StoredRange(await store.head(object_name(tenant.tenant_id, key)), b""), None)
    try:
        front = read_front(found.data, tenant.tenant_id, key)
    except _DAMAGED:
        return Standing(found, None)
    return Standing(found, front)


class RepeatedPut:
    """A Put of an upload whose object stands already: compares instead of storing."""

    def __init__(self, opening: ObjectOpening) -> None:
        self._opening = opening

    async def answer(
        self,
        tenant: Tenant,
        store: ObjectStore,
        standing: Standing,
        command: PutCommand,
        intake: Intake,
        content: AsyncIterator[Chunk | Finish],
    ) -> ObjectInfo:
        """Take the content again to its end, or no chunk at all and a Finish with size and CRC32C, and compare.

        Raises UploadIdReusedError, the errors of Intake, and as ObjectOpening.
        """
        info, key = await self._described(tenant, store, standing, command)
        start = intake.size
        async for message in content:
            if isinstance(message, Chunk):
                intake.take(message)
            elif intake.size == start < message.size and message.crc32c is not None:
                sums = info.size, info.crc32c, info.sha256 or b""
                _require_same(sums, (message.size, message.crc32c, message.sha256))
            else:
                intake.finish(message)
                _require_same((info.size, info.crc32c), (intake.size, intake.crc32c))
        await key.hold()  # the content may have taken its time
        return info

    async def confirm(
        self, tenant: Tenant, store: ObjectStore, standing: Standing, command: PutCommand, intake: Intake
    ) -> ObjectInfo:
        """The same, once the content has been taken. Raises as ``answer``."""
        info, _ = await self._described(tenant, store, standing, command)
        _require_same((info.size, info.crc32c), (intake.size, intake.crc32c))
        return info

    async def _described(
        self, tenant: Tenant, store: ObjectStore, standing: Standing, command: PutCommand
    ) -> tuple[ObjectInfo, HeldKey]:
        opened = await self._opening.open(tenant, command.key, store, standing.found)
        _require_same(
            (opened.metadata.put_header_hash, opened.metadata.principal),
            (command.fingerprint(), command.caller.principal),
        )
        return opened.info(await opened.footer()), opened.key


def _require_same(stored: tuple[object, ...], repeated: tuple[object, ...]) -> None:
    if stored != repeated:
        raise UploadIdReusedError(
            "The object was stored under this upload_id with another header, caller, size or checksum. "
            "Give every Put an upload_id of its own; repeat one only unchanged."
        )
