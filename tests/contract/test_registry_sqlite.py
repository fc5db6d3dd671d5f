"""The SQL registry on SQLite under the TenantRegistry contract: alone, opened twice, and behind the cache."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from clock import FakeClock
from contract.registry import RegistryContract
from keystow_service.adapters.cached_registry import CachedRegistry
from keystow_service.adapters.registry import open_registry
from keystow_service.model import KeyArn, Tenant, TenantId
from keystow_service.ports import TenantRegistry


class _TakingTurns:
    """Two openings of one database, asked in turn: what one writes the other must read."""

    def __init__(self, *registries: TenantRegistry) -> None:
        self._registries = list(registries)

    def _next(self) -> TenantRegistry:
        self._registries.append(self._registries.pop(0))
        return self._registries[-1]

    async def get(self, tenant_id: TenantId) -> Tenant:
        return await self._next().get(tenant_id)

    async def add(self, tenant: Tenant) -> Tenant:
        return await self._next().add(tenant)

    async def key_owner(self, arn: KeyArn) -> TenantId | None:
        return await self._next().key_owner(arn)

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        return await self._next().list(start_after=start_after, limit=limit)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/registry.db"


class TestSqlite(RegistryContract):
    """One opening of the database."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as registry:
            yield registry


class TestTwoOpenings(RegistryContract):
    """As two processes share it."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as one, open_registry(url) as other:
            yield _TakingTurns(one, other)


class TestCached(RegistryContract):
    """Behind the cache."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as registry:
            yield CachedRegistry(registry, FakeClock(), ttl=10.0)
