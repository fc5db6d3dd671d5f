"""The registry's database: opened with its schema up to date, by however many processes start at once.

The promise: what a database or its driver says, which may quote the URL and its password, never leaves. The log gets
symbols; the operator who starts the service is told what to look at; a caller, that the registry does not answer.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
from alembic.util import CommandError
from asyncpg import ClientConfigurationError, InterfaceError, PostgresError
from sqlalchemy import URL, Connection, Executable, NullPool, RowMapping, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from keystow_service.adapters import migrations
from keystow_service.adapters.posix_files import FileLockTimeoutError, file_lock
from keystow_service.errors import RegistryUnavailableError

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_BUSY_TIMEOUT = 5.0  # seconds that SQLite waits for another process's write
_POOL_TIMEOUT = 5.0  # seconds for a free connection
_CONNECT_TIMEOUT = 5.0  # seconds for a new connection to PostgreSQL
_STATEMENT_TIMEOUT = 5.0  # seconds for an answer of PostgreSQL, a wait for another's transaction included
_MIGRATION_TIMEOUT = 60.0  # seconds for other processes' migration and for ours
# Connections of one process: the cache in front leaves few questions, and PostgreSQL's default is 100 for everybody.
_POOL_SIZE = 4
_POOL_OVERFLOW = 4
# Whoever migrates holds this advisory lock: a number that no other program of the database is likely to have.
_MIGRATION_LOCK = int.from_bytes(b"keystow", "big")

_WRONG_OPTION = "registry_url has an option that asyncpg does not know, or one with a value that it does not take."
# SQLSTATEs at the start of the service, and what its operator can do about each.
_START_ADVICE = {
    "28P01": "PostgreSQL refuses the user or the password of registry_url.",
    "28000": "PostgreSQL refuses the user of registry_url, or its way to connect (pg_hba.conf).",
    "3D000": "The database that registry_url names does not exist: create it.",
    "3F000": "The user of registry_url has no schema to make tables in.",
    "25006": "The database that registry_url names is read-only (a standby?), and its tables are not this release's.",
    "42501": "The user of registry_url may not make or read keystow's tables: let it own the database.",
    "53300": "PostgreSQL has no connection left: raise max_connections, or have fewer replicas.",
}


@contextmanager
def explained() -> Iterator[None]:
    """Whatever keeps the database from answering becomes RegistryUnavailableError; symbols only go to the log."""
    try:
        yield
    except IntegrityError:
        raise  # an answer
    except (SQLAlchemyError, PostgresError, InterfaceError, OSError) as error:
        _log(error)
        raise RegistryUnavailableError("The tenant registry does not answer. Try again.", retry_after=1.0) from None


async def open_database(text_of_url: str) -> "Database":
    """A database that has this release's schema. Raises RegistryUnavailableError, for the operator."""
    try:
        url = make_url(text_of_url)
    except (ArgumentError, ValueError):  # a port that is no number
        raise RegistryUnavailableError(
            "registry_url is not a URL: user:password, each percent-encoded, @host."
        ) from None
    match url.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            return Database(await _open_sqlite(url))
        case "postgresql" | "postgresql+asyncpg":
            return Database(await _open_postgresql(url))
        case _:
            raise RegistryUnavailableError(
                "registry_url names another database or driver than keystow has: it must begin with "
                "sqlite+aiosqlite:// or postgresql+asyncpg://."
            )


class Database:
    """One engine, and how everything in the registry asks it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asking: set[asyncio.Task[Any]] = set()

    async def ask(self, statement: Executable) -> Sequence[RowMapping]:
        """The rows of one statement. Raises IntegrityError, RegistryUnavailableError."""

        async def execute(connection: AsyncConnection) -> Sequence[RowMapping]:
            result = await connection.execute(statement)
            return result.mappings().all() if result.returns_rows else ()

        return await self.transact(execute)

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Run ``work`` in a transaction, to its end, also when the caller is cancelled.

        Else SQLAlchemy throws the connection away, and aiosqlite leaks one that it is just opening. The timeouts above
        bound it. Raises IntegrityError, RegistryUnavailableError, and what ``work`` raises, which undoes it.
        """
        task = asyncio.create_task(self._transact(work))
        self._asking.add(task)
        task.add_done_callback(self._answered)
        await asyncio.wait((task,))
        return task.result()

    async def aclose(self) -> None:
        """Wait for statements whose callers have gone, and close the connections."""
        if self._asking:
            await asyncio.wait(self._asking)
        await self._engine.dispose()

    async def _transact(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        with explained():
            async with self._engine.begin() as connection:
                return await work(connection)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else may look


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


async def _open_postgresql(url: URL) -> AsyncEngine:
    url = url.set(drivername="postgresql+asyncpg")
    await _prepare_postgresql(url)
    return create_async_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT,
        pool_pre_ping=True,  # after a restart or a failover of the database no caller meets the old connections
        connect_args=_connect_args(_STATEMENT_TIMEOUT),
    )


async def _prepare_postgresql(url: URL) -> None:
    """Make or upgrade the tables, in one transaction."""
    engine = create_async_engine(url, poolclass=NullPool, connect_args=_connect_args(_MIGRATION_TIMEOUT))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_migrate_postgresql)
    except TypeError:  # the driver's, about a name
        raise RegistryUnavailableError(_WRONG_OPTION) from None
    except (SQLAlchemyError, PostgresError, InterfaceError, OSError) as error:
        if isinstance(error, DBAPIError) and isinstance(error.driver_exception, ClientConfigurationError):
            raise RegistryUnavailableError(_WRONG_OPTION) from None
        advice = _START_ADVICE.get(_log(error) or "") or f"PostgreSQL does not answer at {_address(url)}."
        raise RegistryUnavailableError(f"The tenant registry cannot be opened. {advice}") from None
    finally:
        await engine.dispose()


def _migrate_postgresql(connection: Connection) -> None:
    if migrations.is_current(connection):
        return  # needs no right to write: a standby serves reads
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    _upgrade(connection, "in PostgreSQL")


def _connect_args(statement_timeout: float) -> dict[str, object]:
    return {
        "timeout": _CONNECT_TIMEOUT,
        "command_timeout": statement_timeout,
        "server_settings": {"application_name": "keystow"},
    }


def _address(url: URL) -> str:
    """Of the URL only what is no secret."""
    return f"{url.host or 'the local socket'}:{url.port or 5432}"


# --- SQLite -----------------------------------------------------------------------------------------------------------


async def _open_sqlite(url: URL) -> AsyncEngine:
    try:
        await asyncio.to_thread(_prepare_sqlite, url)
    except FileLockTimeoutError as error:
        raise RegistryUnavailableError(str(error)) from None
    return create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_timeout=_POOL_TIMEOUT,
        connect_args={"timeout": _BUSY_TIMEOUT},
    )


def _prepare_sqlite(url: URL) -> None:
    """Make or upgrade the database. Blocks."""
    if not url.database:
        raise RegistryUnavailableError("The tenant registry must be a file: its URL names none.")
    path = Path(url.database)
    engine = create_engine(url.set(drivername="sqlite"), poolclass=NullPool)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file_lock(path.with_name(path.name + ".lock")):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with engine.begin() as connection:
                # Readers never wait for a writer. Kept in the file, so that it is set here, where nobody else is.
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                # Python's sqlite3 begins no transaction before DDL; a crash must not leave half a schema.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                _upgrade(connection, str(path))
    except (SQLAlchemyError, OSError) as error:
        symbol = _log(error)
        reason = error.strerror if isinstance(error, OSError) else symbol
        raise RegistryUnavailableError(
            f"The tenant registry cannot be opened ({reason}). Its file, registry.db in data_dir where registry_url is "
            "not set, must be keystow's own, and the server's user must be able to read and write it and its directory."
        ) from None


# ----------------------------------------------------------------------------------------------------------------------


def _upgrade(connection: Connection, where: str) -> None:
    try:
        migrations.upgrade(connection)
    except CommandError:
        raise RegistryUnavailableError(
            f"The tenant registry {where} was written by a later release. Run that one."
        ) from None


def _log(error: Exception) -> str | None:
    """Gives PostgreSQL's SQLSTATE or SQLite's name of the error, where there is one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state: str | None = getattr(cause, "sqlstate", None)
    symbol: str | None = getattr(cause, "sqlite_errorname", None) or state
    # A traceback would carry the statement's values.
    log.error("registry.unavailable", kind=type(cause).__name__, code=symbol)
    return symbol
