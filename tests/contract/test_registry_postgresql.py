"""The SQL registry on PostgreSQL under its contracts: alone, and as two replicas share it."""

from collections.abc import AsyncIterator

import pytest

from contract.key_health import KeyHealthContract
from contract.registry import RegistryContract, TakingTurns
from keystow_service.adapters.registry import SqlRegistry, open_registry
from keystow_service.ports import KeyHealthRecords, TenantRegistry
from servers.postgresql import PostgresqlServer, new_database


@pytest.fixture
async def url(postgresql: PostgresqlServer) -> AsyncIterator[str]:
    async with new_database(postgresql) as name:
        yield postgresql.url(name)


class TestPostgresql(RegistryContract):
    """One replica."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as registry:
            yield registry


class TestTwoReplicas(RegistryContract):
    """What one writes the other reads, and of two that write at once one wins."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[TenantRegistry]:
        async with open_registry(url) as one, open_registry(url) as other:
            yield TakingTurns(one, other)


class TestKeyHealth(KeyHealthContract):
    """What was seen of keys, in the same database."""

    @pytest.fixture
    async def registry(self, url: str) -> AsyncIterator[SqlRegistry]:
        async with open_registry(url) as registry:
            yield registry

    @pytest.fixture
    def records(self, registry: SqlRegistry) -> KeyHealthRecords:
        return registry.key_health
