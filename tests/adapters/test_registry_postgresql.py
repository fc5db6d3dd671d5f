"""The registry's database in PostgreSQL: made by many at once, and what is said when it does not answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from adapters.registering import register_at_once
from contract.registry import new_tenant
from keystow_service.adapters import migrations, registry_database, registry_tables
from keystow_service.adapters.registry import open_registry
from keystow_service.app import StartError, open_server
from keystow_service.errors import RegistryUnavailableError, TenantNotFoundError
from keystow_service.model import TenantId
from keystow_service.settings import Settings
from servers.postgresql import PostgresqlServer, execute, new_database


@pytest.fixture
async def database(postgresql: PostgresqlServer) -> AsyncIterator[str]:
    async with new_database(postgresql) as name:
        yield name


@pytest.fixture
def url(postgresql: PostgresqlServer, database: str) -> str:
    return postgresql.url(database)


async def test_replicas_at_once(url: str) -> None:
    """Replicas that start at once on an empty database make its tables once; one of them gets the tenant."""
    assert await asyncio.to_thread(register_at_once, url, 3) == ["lost", "lost", "won"]


async def test_many_openings_at_once(url: str) -> None:
    """However many make the tables at once, each opens."""
    await asyncio.gather(*(_open_once(url) for _ in range(8)))


async def test_schema_is_the_models(url: str) -> None:
    """The revisions together make exactly the tables that the code uses, and ids sort by their bytes."""
    await _open_once(url)
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), registry_tables.metadata)
        )
        collation = await connection.exec_driver_sql(
            "SELECT collation_name FROM information_schema.columns"
            " WHERE table_name = 'tenants' AND column_name = 'tenant_id'"
        )
        assert collation.scalar() == "C"
    await engine.dispose()
    assert differences == []


async def test_half_an_upgrade(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that is cut short leaves nothing behind, and the next start completes it."""
    whole = migrations.upgrade

    def cut_short(connection: Connection) -> None:
        whole(connection)
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "upgrade", cut_short)
        with pytest.raises(RegistryUnavailableError):
            await _open_once(url)
    async with open_registry(url) as opened:
        assert not await opened.list(limit=1)


async def test_later_release(postgresql: PostgresqlServer, database: str, url: str) -> None:
    """A database of a later release is left alone, and its operator is told."""
    await _open_once(url)
    await execute(postgresql, database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryUnavailableError, match="later release"):
        await _open_once(url)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("canary-password", "canary-wrong"), "refuses the user or the password"),
        (("keystow:", "somebody:"), "refuses the user or the password"),
        (("@/keystow_", "@/nosuch_"), "does not exist"),
        (("?host=", "?sslmode=canary&host="), "has an option that asyncpg does not know"),
        (("?host=", "?ssl=canary&host="), "has an option that asyncpg does not know"),
        (("?host=", "?host=/nowhere"), "does not answer at the local socket"),
        (("@/", "@127.0.0.1:1/"), "does not answer at 127.0.0.1:1"),
    ],
)
async def test_the_server_does_not_start(url: str, tmp_path: Path, wrong: tuple[str, str], says: str) -> None:
    """On a registry that cannot be opened, the operator is told what to look at, and nobody the password."""
    text = url.replace(*wrong)
    if "127.0.0.1" in text:
        text = text.partition("?")[0]
    with capture_logs() as logs, pytest.raises(StartError, match=says) as caught:
        async with open_server(Settings(listen="127.0.0.1:0", data_dir=tmp_path, registry_url=text)):  # type: ignore[arg-type] # pydantic's
            pass
    assert "canary" not in f"{caught.value}{logs}"
    assert caught.value.__cause__ is None


async def test_no_right_to_make_tables(postgresql: PostgresqlServer, database: str, url: str) -> None:
    """A user who may only look is told so at the start; where the tables are, it may start, and reads."""
    user = f"reader_{database}"
    as_reader = postgresql.url(database, user=user)
    await execute(postgresql, database, f"CREATE ROLE {user} LOGIN PASSWORD '{postgresql.password}'")
    try:
        with pytest.raises(RegistryUnavailableError, match="may not make or read keystow's tables"):
            await _open_once(as_reader)
        await _open_once(url)
        await execute(postgresql, database, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        async with open_registry(as_reader) as opened:
            assert not await opened.list(limit=1)
            with pytest.raises(RegistryUnavailableError):
                await opened.add(new_tenant("acme"))
    finally:
        await execute(postgresql, database, f"DROP OWNED BY {user}", f"DROP ROLE {user}")


async def test_read_only(postgresql: PostgresqlServer, database: str, url: str) -> None:
    """On a database that takes no writes (a standby), an empty one refuses the start; a full one serves its tenants."""
    read_only = f"ALTER DATABASE {database} SET default_transaction_read_only = on"
    await execute(postgresql, "postgres", read_only)
    with pytest.raises(RegistryUnavailableError, match="is read-only"):
        await _open_once(url)
    await execute(postgresql, "postgres", f"ALTER DATABASE {database} RESET ALL")
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        await opened.add(tenant)
    await execute(postgresql, "postgres", read_only)
    async with open_registry(url) as opened:
        assert await opened.get(tenant.tenant_id) == tenant
        with pytest.raises(RegistryUnavailableError):
            await opened.add(new_tenant("beta"))


async def test_database_that_fails(postgresql: PostgresqlServer, database: str, url: str) -> None:
    """When the database fails, every method says so, with its symbols in the log and no statement or value."""
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        await execute(postgresql, database, "DROP TABLE tenants CASCADE")
        with capture_logs() as logs:
            for call in (
                opened.get(tenant.tenant_id),
                opened.add(tenant),
                opened.key_in_use(tenant.key_arn, besides=tenant.tenant_id),
                opened.list(limit=10),
                opened.key_health.unobserved(tenant.create_time, tenant.data_center, limit=10),
            ):
                with pytest.raises(RegistryUnavailableError) as caught:
                    await call
                assert "tenants" not in caught.value.message
    assert [line["code"] for line in logs] == ["42P01"] * 5
    assert "tenants" not in str(logs)


async def test_restart_of_the_database(postgresql: PostgresqlServer, url: str) -> None:
    """While PostgreSQL is down its callers are told; once it is back no old connection disturbs anybody."""
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        await asyncio.gather(*(opened.list(limit=1) for _ in range(4)))  # some connections
        await opened.add(tenant)
        postgresql.stop()
        try:
            with pytest.raises(RegistryUnavailableError):
                await opened.get(tenant.tenant_id)
        finally:
            await asyncio.to_thread(postgresql.start)
        for _ in range(4):
            assert await opened.get(tenant.tenant_id) == tenant
        postgresql.stop()
        await asyncio.to_thread(postgresql.start)
        assert await opened.list(limit=10) == [tenant]


async def test_locked_table(
    postgresql: PostgresqlServer, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait for somebody else's lock ends with REGISTRY_UNAVAILABLE, and afterwards all is well."""
    monkeypatch.setattr(registry_database, "_STATEMENT_TIMEOUT", 0.5)
    tenant = new_tenant("acme")
    another = create_async_engine(url, poolclass=NullPool)
    async with open_registry(url) as opened:
        async with another.begin() as connection:
            await connection.exec_driver_sql("LOCK TABLE tenants")
            for _ in range(2):
                with pytest.raises(RegistryUnavailableError):
                    await opened.add(tenant)
        assert await opened.add(tenant) == tenant
    await another.dispose()


async def test_cancelled(url: str) -> None:
    """Calls cancelled at any point leave nothing open, and the registry works on."""
    async with open_registry(url) as opened:
        for rounds in range(30):
            calls = [asyncio.create_task(opened.get(TenantId("acme"))) for _ in range(5)]
            for _ in range(rounds):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError | TenantNotFoundError)  # cancelled, or quicker
        tenant = await opened.add(new_tenant("acme"))
        assert await opened.get(tenant.tenant_id) == tenant


async def _open_once(url: str) -> None:
    async with open_registry(url):
        pass
