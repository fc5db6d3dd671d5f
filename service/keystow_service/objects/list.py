"""List: a tenant's objects by key prefix, a page at a time. Needs no key: sizes follow from stored sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

from keystow_service.envelope.layout import V1
from keystow_service.errors import ObjectTruncatedError
from keystow_service.model import MAX_PAGE_SIZE, ObjectInfo, ObjectKey, TenantId
from keystow_service.objects import names
from keystow_service.ports import Sites, StoredObject, TenantRegistry, site_of

# Listed for a stored size that no object has: damaged, but not to be hidden.
DAMAGED_SIZE = -1


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects in order, and whether more follow."""

    objects: Sequence[ObjectInfo]
    more: bool


class ListObjects:
    """See the module."""

    def __init__(self, registry: TenantRegistry, sites: Sites) -> None:
        self._registry = registry
        self._sites = sites

    async def __call__(self, tenant_id: TenantId, prefix: str, *, start_after: str, limit: int) -> Page:
        """At most ``limit`` objects after the key ``start_after``. Raises TenantNotFoundError, Store… errors."""
        tenant = await self._registry.get(tenant_id)
        store = site_of(self._sites, tenant).store
        name_prefix = names.list_prefix(tenant_id, prefix)
        after = names.object_name(tenant_id, ObjectKey(start_after)) if start_after else ""
        objects: list[ObjectInfo] = []
        wanted = limit + 1
        while len(objects) <= limit:
            found = await store.list(name_prefix, start_after=after, limit=wanted)
            objects.extend(info for stored in found if (info := _info(tenant_id, stored)) is not None)
            if len(found) < wanted:
                break
            after = found[-1].name
            wanted = MAX_PAGE_SIZE  # where there are names that are not ours, there may be many
        return Page(objects[:limit], more=len(objects) > limit)


def _info(tenant_id: TenantId, stored: StoredObject) -> ObjectInfo | None:
    """None for a name that is no key's: something else put it into the bucket."""
    key = names.key_of(tenant_id, stored.name)
    if key is None:
        return None
    try:
        size = V1.plaintext_size(stored.size)
    except ObjectTruncatedError:
        size = DAMAGED_SIZE
    return ObjectInfo(
        tenant_id=tenant_id,
        key=key,
        version_id=stored.etag,
        size=size,
        stored_size=stored.size,
        create_time=stored.modified,
    )
