"""The registry's database: how it is made, opened by many at once, and what happens when it does not answer."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, create_engine
from structlog.testing import capture_logs

from adapters.registering import register_at_once
from contract.registry import new_tenant
from keystow_service.adapters import migrations, registry_database, registry_tables
from keystow_service.adapters.registry import open_registry
from keystow_service.errors import KmsKeyInUseError, RegistryUnavailableError, TenantNotFoundError
from keystow_service.model import KeyManagement, TenantId


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "registry.db"


@pytest.fixture
def url(database: Path) -> str:
    return f"sqlite+aiosqlite:///{database}"


async def test_made_on_first_use(database: Path, url: str) -> None:
    """The database is made with its folder, for its owner's eyes only, and opens again with what it holds."""
    tenant = new_tenant("acme")
    async with open_registry(url) as first:
        await first.add(tenant)
        for path in database.parent.iterdir():
            assert path.stat().st_mode & 0o077 == 0
        assert database.parent.stat().st_mode & 0o777 == 0o700
    async with open_registry(url) as second:
        assert await second.get(tenant.tenant_id) == tenant


async def test_short_url(database: Path) -> None:
    """A URL without a driver means the one that keystow uses."""
    async with open_registry(f"sqlite:///{database}") as opened:
        await opened.add(new_tenant("acme"))


def test_processes_at_once(url: str) -> None:
    """Processes that start at once on a database that does not exist yet make it once; one of them gets the tenant."""
    assert register_at_once(url, 3) == ["lost", "lost", "won"]


def test_schema_is_the_models(tmp_path: Path) -> None:
    """The revisions together make exactly the tables that the code uses."""
    engine = create_engine(f"sqlite:///{tmp_path}/registry.db", poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
        assert migrations.is_current(connection)
        assert compare_metadata(MigrationContext.configure(connection), registry_tables.metadata) == []


def test_half_an_upgrade(database: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """An upgrade that is cut short leaves nothing behind, and the next start completes it."""
    whole = migrations.upgrade

    def cut_short(connection: Connection) -> None:
        whole(connection)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "upgrade", cut_short)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(_open_once(url))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    asyncio.run(_open_once(url))


async def test_tenants_of_an_earlier_schema(tmp_path: Path, url: str) -> None:
    """Keys that were registered before replicas were one key are so known, too, and in use for other tenants."""
    database = tmp_path / "state" / "registry.db"
    database.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", "keystow_service.adapters:migrations")
    engine = create_engine(f"sqlite:///{database}", poolclass=NullPool)
    own, provided = new_tenant("own"), new_tenant("provided", KeyManagement.PROVIDER)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for tenant in (own, provided):
            row = (tenant.tenant_id, tenant.display_name, tenant.key_management.value, tenant.key_arn.text, "uk")
            connection.exec_driver_sql("INSERT INTO tenants VALUES (?, ?, ?, ?, ?, '2026-01-02 03:04:05.678901')", row)
    async with open_registry(url) as opened:
        assert await opened.list(limit=3) == [own, provided]
        with pytest.raises(KmsKeyInUseError):
            await opened.add(new_tenant("other", arn=own.key_arn))
        await opened.add(new_tenant("other", KeyManagement.PROVIDER, provided.key_arn))


async def test_later_release(database: Path, url: str) -> None:
    """A database of a later release is left alone, and its operator is told."""
    await _open_once(url)
    _execute(database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryUnavailableError, match="later release"):
        await _open_once(url)


@pytest.mark.parametrize(
    "url",
    [
        "not a url: secret",
        "sqlite+aiosqlite://",
        "nosuchdatabase://user:secret@localhost/keystow",
        "postgresql+nosuchdriver://user:secret@localhost/keystow",
        "postgresql+psycopg2://user:secret@localhost/keystow",
        "postgresql+asyncpg://user:secret@localhost:port/keystow",
        "sqlite+aiosqlite:////proc/secret/registry.db",
    ],
)
async def test_urls_that_lead_nowhere(url: str) -> None:
    """What cannot be opened is reported in our words, without the URL, which may hold a password."""
    with capture_logs() as logs, pytest.raises(RegistryUnavailableError) as caught:
        await _open_once(url)
    assert "secret" not in f"{caught.value.message}{logs}"


def test_not_a_database(database: Path, url: str) -> None:
    """A file that is no database is not overwritten, and the service does not start on it, but says what is wrong."""
    database.parent.mkdir()
    database.write_text("valuable text" * 1000)
    with pytest.raises(RegistryUnavailableError, match="SQLITE_NOTADB"):
        asyncio.run(_open_once(url))
    assert database.read_text() == "valuable text" * 1000


async def test_database_that_fails(database: Path, url: str) -> None:
    """When the database fails, every method says so, with its symbols in the log and no statement or value."""
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        _execute(database, "DROP TABLE tenants")
        with capture_logs() as logs:
            for call in (
                opened.get(tenant.tenant_id),
                opened.add(tenant),
                opened.key_in_use(tenant.key_arn, besides=tenant.tenant_id),
                opened.list(limit=10),
            ):
                with pytest.raises(RegistryUnavailableError) as caught:
                    await call
                assert "tenants" not in caught.value.message
    assert len(logs) == 4
    for line in logs:
        assert line == {
            "event": "registry.unavailable",
            "log_level": "error",
            "kind": "OperationalError",
            "code": "SQLITE_ERROR",
        }


async def test_busy_database(database: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process writes, reading goes on; writing ends with REGISTRY_UNAVAILABLE, and works afterwards."""
    monkeypatch.setattr(registry_database, "_BUSY_TIMEOUT", 0.05)
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        with closing(sqlite3.connect(database, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            assert not await opened.list(limit=1)
            with pytest.raises(RegistryUnavailableError):
                await opened.add(tenant)
            another.execute("ROLLBACK")
        assert await opened.add(tenant) == tenant


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


async def test_closed_in_the_middle(url: str) -> None:
    """What a cancelled caller has asked is done, with its connection closed, when the registry is."""
    tenant = new_tenant("acme")
    async with open_registry(url) as opened:
        call = asyncio.create_task(opened.add(tenant))
        await asyncio.sleep(0)
        call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with open_registry(url) as opened:
        assert await opened.get(tenant.tenant_id) == tenant


async def _open_once(url: str) -> None:
    async with open_registry(url):
        pass


def _execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)
