"""The date of a deletion that KMS told once, for when it says only that the key is to be deleted.

DescribeKey, which tells the date, may be refused later. What was known stands for as long as KMS says that the deletion
is pending, until the date has passed. It is no evidence of that itself.
"""

from datetime import datetime

from keystow_service.keys.health import KeyHealthView
from keystow_service.model import KeyArn, TenantId
from keystow_service.ports import TENANT_CONTEXT, Clock, EncryptionContext, TenantRegistry


class AnnouncedDeletions:
    """See the module."""

    def __init__(self, registry: TenantRegistry, health: KeyHealthView, clock: Clock) -> None:
        self._registry = registry
        self._health = health
        self._clock = clock

    async def __call__(self, arn: KeyArn, context: EncryptionContext) -> datetime | None:
        """When the key of the context's tenant is to be deleted; None if that is not known.

        Raises TenantNotFoundError, RegistryUnavailableError.
        """
        tenant = await self._registry.get(TenantId(context.get(TENANT_CONTEXT, "")))
        if tenant.key_arn != arn:
            return None  # another key is being tried for the tenant
        health = (await self._health.of([tenant.tenant_id])).get(tenant.tenant_id)
        return health.announced(self._clock.now()) if health else None
