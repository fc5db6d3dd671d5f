"""A stored object, opened: found under its name, its header checked, its data key unwrapped under the lease.

Shared by every use case that reads. Nothing of an object is believed before this has verified it.
"""

from dataclasses import dataclass

from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, V1
from keystow_service.envelope.reader import Front, SegmentOpener, read_front
from keystow_service.envelope.sealing import Footer, Metadata
from keystow_service.errors import ObjectChangedError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.held_key import HeldKey
from keystow_service.model import ObjectInfo, ObjectKey, Tenant
from keystow_service.objects.names import object_name
from keystow_service.ports import ObjectStore, Sites, StoredObject, StoredRange, site_of


@dataclass(frozen=True, slots=True)
class OpenObject:
    """What reading needs. ``head`` are the stored bytes read so far, from the beginning."""

    tenant: Tenant
    store: ObjectStore
    stored: StoredObject
    head: bytes
    front: Front
    key: HeldKey
    opener: SegmentOpener
    metadata: Metadata

    async def read(self, start: int, length: int) -> bytes:
        """Stored bytes of this very version. Raises ObjectChangedError, ObjectNotFoundError, Store… errors."""
        if start + length <= len(self.head):
            return self.head[start : start + length]
        return (await self.store.read(self.stored.name, start, length, etag=self.stored.etag)).data

    async def footer(self) -> Footer:
        """Makes the size authentic. Raises ObjectTamperedError, ObjectTruncatedError, and as ``read``."""
        sealed = await self.read(V1.footer_offset(self.opener.size), FOOTER_LENGTH)
        await self.key.hold()
        return self.opener.footer(sealed)

    def info(self, footer: Footer | None) -> ObjectInfo:
        """The object for its owner; without the footer, without checksums."""
        core = self.front.header.core
        return ObjectInfo(
            tenant_id=core.tenant_id,
            key=core.key,
            version_id=self.stored.etag,
            size=self.opener.size,
            stored_size=self.stored.size,
            create_time=core.create_time,
            crc32c=footer.crc32c if footer else None,
            sha256=footer.sha256 if footer else None,
            content_type=self.metadata.content_type,
            metadata=self.metadata.user,
            kms_key_arn=self.tenant.key_arn.text,
        )


class ObjectOpening:
    """See the module."""

    def __init__(self, sites: Sites, keys: DataKeys) -> None:
        self._sites = sites
        self._keys = keys

    async def __call__(self, tenant: Tenant, key: ObjectKey, *, version_id: str = "", ahead: int = 0) -> OpenObject:
        """Open the current version, reading ``ahead`` bytes beyond the front at once.

        Raises ObjectNotFoundError, ObjectChangedError (not ``version_id``), KeyRefusal, DATA_LOSS errors, Store…, Kms….
        """
        store = site_of(self._sites, tenant).store
        found = await store.read(object_name(tenant.tenant_id, key), 0, FRONT_LENGTH + ahead)
        if version_id and found.object.etag != version_id:
            raise ObjectChangedError("version_id is no longer the current version. Stat the object and begin again.")
        return await self.open(tenant, key, store, found)

    async def open(self, tenant: Tenant, key: ObjectKey, store: ObjectStore, found: StoredRange) -> OpenObject:
        """Open what was read from an object's beginning. Raises KeyRefusal, DATA_LOSS errors, Kms… errors."""
        front = read_front(found.data[:FRONT_LENGTH], tenant.tenant_id, key)
        size = V1.plaintext_size(found.object.size)
        held = await self._keys.for_opening(tenant, front.header.wrap.wrapped_key)
        opener = SegmentOpener(front, held.data_key.plaintext, size)
        return OpenObject(tenant, store, found.object, found.data, front, held, opener, opener.metadata())
