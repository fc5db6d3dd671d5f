"""What the registry's cache remembers, for how long, and what it never does."""

from collections.abc import Sequence

import pytest

from clock import FakeClock
from contract.registry import new_tenant
from keystow_service.adapters.cached_registry import CachedRegistry
from keystow_service.errors import RegistryUnavailableError, TenantNotFoundError
from keystow_service.model import KeyArn, Tenant, TenantId


class CountingRegistry:
    """In memory; counts what it is asked, and can be down or slow."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.tenants: dict[TenantId, Tenant] = {}
        self.down = False
        self.takes = 0.0
        self.asked: list[TenantId] = []

    async def get(self, tenant_id: TenantId) -> Tenant:
        self.asked.append(tenant_id)
        self.clock.advance(self.takes)
        if self.down:
            raise RegistryUnavailableError("down")
        if tenant_id not in self.tenants:
            raise TenantNotFoundError("none")
        return self.tenants[tenant_id]

    async def add(self, tenant: Tenant) -> Tenant:
        return self.tenants.setdefault(tenant.tenant_id, tenant)

    async def key_in_use(self, arn: KeyArn, *, besides: TenantId) -> bool:
        return any(tenant.key_arn == arn for name, tenant in self.tenants.items() if name != besides)

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        return [tenant for name, tenant in sorted(self.tenants.items()) if name > start_after][:limit]


ACME = new_tenant("acme")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def behind(clock: FakeClock) -> CountingRegistry:
    return CountingRegistry(clock)


@pytest.fixture
def cached(behind: CountingRegistry, clock: FakeClock) -> CachedRegistry:
    return CachedRegistry(behind, clock, ttl=10.0, max_entries=3)


async def test_remembers_for_a_while(cached: CachedRegistry, behind: CountingRegistry, clock: FakeClock) -> None:
    """A tenant is asked for once per ttl."""
    await cached.add(ACME)
    for _ in range(5):
        assert await cached.get(ACME.tenant_id) == ACME
    clock.advance(9.99)
    await cached.get(ACME.tenant_id)
    assert len(behind.asked) == 1
    clock.advance(0.01)
    await cached.get(ACME.tenant_id)
    assert len(behind.asked) == 2


async def test_down(cached: CachedRegistry, behind: CountingRegistry, clock: FakeClock) -> None:
    """While the registry is down, what is fresh is used, and what is old is not."""
    await cached.add(ACME)
    await cached.get(ACME.tenant_id)
    behind.down = True
    await cached.get(ACME.tenant_id)
    clock.advance(10.0)
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError):
            await cached.get(ACME.tenant_id)
    behind.down = False
    assert await cached.get(ACME.tenant_id) == ACME


async def test_not_found_is_not_remembered(cached: CachedRegistry) -> None:
    """A tenant is there the moment it is registered, also for who asked too early."""
    with pytest.raises(TenantNotFoundError):
        await cached.get(ACME.tenant_id)
    await cached.add(ACME)
    assert await cached.get(ACME.tenant_id) == ACME


async def test_slow_answers_are_old(cached: CachedRegistry, behind: CountingRegistry) -> None:
    """Age counts from when the registry was asked, not from when it answered."""
    await cached.add(ACME)
    behind.takes = 10.0
    await cached.get(ACME.tenant_id)
    behind.takes = 0.0
    await cached.get(ACME.tenant_id)
    assert len(behind.asked) == 2


async def test_bounded(cached: CachedRegistry, behind: CountingRegistry) -> None:
    """Only so many tenants are remembered: the one known longest goes."""
    names = [TenantId(f"tenant-{number}") for number in range(4)]
    for name in names:
        await cached.add(new_tenant(name))
        await cached.get(name)
    behind.asked.clear()
    for name in reversed(names[1:]):
        await cached.get(name)
    assert not behind.asked
    await cached.get(names[0])
    assert behind.asked == [names[0]]
