"""The SQL registry on SQLite under its contracts: alone, opened twice, and behind the cache."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clock import FakeClock
from contract.key_health import KeyHealthContract
from contract.registry import RegistryContract, TakingTurns
from keystow_service.adapters.cached_registry import CachedRegistry
from keystow_service.adapters.registry import SqlRegistry, open_registry
from keystow_service.ports import KeyHealthRecords, TenantRegistry


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
            yield TakingTurns(one, other)


class TestCached(RegistryContract):
    """Behind the cache."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as registry:
            yield CachedRegistry(registry, FakeClock(), ttl=10.0)


class TestKeyHealth(KeyHealthContract):
    """What was seen of keys, in the same database."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[SqlRegistry]:
        async with open_registry(url) as registry:
            yield registry

    @pytest.fixture
    def records(self, registry: SqlRegistry) -> KeyHealthRecords:
        return registry.key_health
