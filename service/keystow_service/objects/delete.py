"""Delete: remove one object. Needs no key; with a version, removes that version or nothing."""

from keystow_service.errors import ObjectNotFoundError, VersionMismatchError
from keystow_service.model import ObjectKey, TenantId
from keystow_service.objects.names import object_name
from keystow_service.ports import ConditionFailed, Sites, TenantRegistry, site_of


class DeleteObject:
    """See the module."""

    def __init__(self, registry: TenantRegistry, sites: Sites) -> None:
        self._registry = registry
        self._sites = sites

    async def __call__(self, tenant_id: TenantId, key: ObjectKey, *, if_version_id: str, allow_missing: bool) -> None:
        """Raises TenantNotFoundError, ObjectNotFoundError unless ``allow_missing``, VersionMismatchError, Store…."""
        tenant = await self._registry.get(tenant_id)
        store = site_of(self._sites, tenant).store
        try:
            await store.delete(object_name(tenant_id, key), etag=if_version_id or None)
        except ObjectNotFoundError:
            if not allow_missing:
                raise
        except ConditionFailed:
            raise VersionMismatchError(
                "The current version is another than if_version_id; nothing was deleted. Stat it and decide anew."
            ) from None
