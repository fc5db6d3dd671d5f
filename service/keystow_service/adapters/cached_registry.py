"""The tenant registry behind a short memory, so that a Put does not cost a query.

The promise: only tenants that were found are remembered, and none for longer than ``ttl``; when the registry is down,
older ones are not used instead. What is remembered cannot be wrong, because a tenant's choices are permanent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keystow_service.model import KeyArn, Tenant, TenantId
from keystow_service.ports import Clock, TenantRegistry

_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    tenant: Tenant
    asked_at: float


class CachedRegistry:
    """A TenantRegistry that asks another one."""

    def __init__(self, registry: TenantRegistry, clock: Clock, *, ttl: float, max_entries: int = _MAX_ENTRIES) -> None:
        """``ttl`` is in seconds, and counts from when the registry was asked."""
        self._registry = registry
        self._clock = clock
        self._ttl = ttl
        self._max_entries = max_entries
        self._entries: dict[TenantId, _Entry] = {}  # the longest known first

    async def get(self, tenant_id: TenantId) -> Tenant:
        """See ports.TenantRegistry."""
        now = self._clock.boottime()
        entry = self._entries.get(tenant_id)
        if entry is not None and now - entry.asked_at < self._ttl:
            return entry.tenant
        self._entries.pop(tenant_id, None)
        tenant = await self._registry.get(tenant_id)
        self._entries[tenant_id] = _Entry(tenant, now)
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]
        return tenant

    async def add(self, tenant: Tenant) -> Tenant:
        """See ports.TenantRegistry."""
        return await self._registry.add(tenant)

    async def key_in_use(self, arn: KeyArn, *, besides: TenantId) -> bool:
        """See ports.TenantRegistry."""
        return await self._registry.key_in_use(arn, besides=besides)

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        """See ports.TenantRegistry."""
        return await self._registry.list(start_after=start_after, limit=limit)
