"""Stat: describe one object, authenticated by its header and footer, without reading its content."""

from keystow_service.model import ObjectInfo, ObjectKey, TenantId
from keystow_service.objects.opening import ObjectOpening
from keystow_service.ports import TenantRegistry


class StatObject:
    """See the module."""

    def __init__(self, registry: TenantRegistry, opening: ObjectOpening) -> None:
        self._registry = registry
        self._opening = opening

    async def __call__(self, tenant_id: TenantId, key: ObjectKey, *, version_id: str) -> ObjectInfo:
        """Raises as ObjectOpening, and TenantNotFoundError."""
        tenant = await self._registry.get(tenant_id)
        opened = await self._opening(tenant, key, version_id=version_id)
        return opened.info(await opened.footer())
