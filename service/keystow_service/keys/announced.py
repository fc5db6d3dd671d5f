"""What is remembered of a deletion that KMS announced, for when it no longer tells of it.

A key that is to be deleted may refuse as a disabled one does, and DescribeKey, which tells them apart, may be refused
as well. What was known stands until a use succeeds, a description says otherwise, or the date has passed.
"""

from keystow_service.keys.health import KeyHealthView
from keystow_service.model import KeyArn, KeyObservation, KeyState, TenantId
from keystow_service.ports import TENANT_CONTEXT, Clock, EncryptionContext, TenantRegistry


class AnnouncedDeletions:
    """See the module."""

    def __init__(self, registry: TenantRegistry, health: KeyHealthView, clock: Clock) -> None:
        self._registry = registry
        self._health = health
        self._clock = clock

    async def __call__(self, arn: KeyArn, context: EncryptionContext) -> KeyObservation | None:
        """What showed that the key of the context's tenant is to be deleted; None if nothing did.

        Raises TenantNotFoundError, RegistryUnavailableError.
        """
        tenant = await self._registry.get(TenantId(context.get(TENANT_CONTEXT, "")))
        if tenant.key_arn != arn:
            return None  # another key is being tried for the tenant
        health = (await self._health.of([tenant.tenant_id])).get(tenant.tenant_id)
        if health is None or health.newest.state is not KeyState.PENDING_DELETION:
            return None
        date = health.newest.deletion_time
        return health.newest if date is None or self._clock.now() < date else None
