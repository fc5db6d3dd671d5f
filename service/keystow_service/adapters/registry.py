"""The tenant registry in a SQL database: SQLite in the deployment's own folder, or a PostgreSQL that replicas share.

The promise: a tenant's choice is written once and for good, whoever else tries at the same time in whatever process,
because the database's own constraints decide; and what the database cannot answer is an error, never "no such tenant".
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Executable,
    Index,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    TypeDecorator,
    insert,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from keystow_service.adapters.registry_database import explained, open_database
from keystow_service.errors import KmsKeyInUseError, TenantExistsError, TenantNotFoundError
from keystow_service.model import KeyArn, KeyManagement, Tenant, TenantId


class _UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC, also in SQLite, which stores no offsets."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - TypeDecorator's
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - TypeDecorator's
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


metadata = MetaData()

_tenants = Table(
    "tenants",
    metadata,
    # "C": ids sort by their bytes, as everywhere else.
    Column("tenant_id", String(63).with_variant(String(63, collation="C"), "postgresql"), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("key_management", String(16), nullable=False),
    Column("kms_key_arn", String(256), nullable=False),
    Column("data_center", String(63), nullable=False),
    Column("create_time", _UtcDateTime, nullable=False),
    CheckConstraint("key_management IN ('provider', 'self')", name="tenants_key_management"),
    # A self-managed key serves one tenant; a provider's key many.
    Index(
        "tenants_self_managed_key",
        "kms_key_arn",
        unique=True,
        sqlite_where=text("key_management = 'self'"),
        postgresql_where=text("key_management = 'self'"),
    ),
)


@asynccontextmanager
async def open_registry(url: str) -> AsyncIterator["SqlRegistry"]:
    """The registry at a SQLAlchemy URL: sqlite+aiosqlite:///data/registry.db, postgresql+asyncpg://user:password@host/name.

    Its schema is made on first use and brought up to this release's, by one process at a time. Raises
    RegistryUnavailableError, whose message is the operator's.
    """
    registry = SqlRegistry(await open_database(url))
    try:
        yield registry
    finally:
        await registry.aclose()


class SqlRegistry:
    """A TenantRegistry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asking: set[asyncio.Task[Sequence[RowMapping]]] = set()

    async def aclose(self) -> None:
        """Wait for statements whose callers have gone, and close the connections."""
        if self._asking:
            await asyncio.wait(self._asking)
        await self._engine.dispose()

    async def get(self, tenant_id: TenantId) -> Tenant:
        """See ports.TenantRegistry."""
        tenant = await self._find(tenant_id)
        if tenant is None:
            raise TenantNotFoundError("There is no such tenant. RegisterTenant makes it.", tenant_id=tenant_id)
        return tenant

    async def add(self, tenant: Tenant) -> Tenant:
        """See ports.TenantRegistry."""
        try:
            await self._ask(insert(_tenants).values(_to_row(tenant)))
        except IntegrityError:
            return await self._standing_instead_of(tenant)
        return tenant

    async def key_owner(self, arn: KeyArn) -> TenantId | None:
        """See ports.TenantRegistry."""
        rows = await self._ask(
            select(_tenants.c.tenant_id).where(
                _tenants.c.kms_key_arn == arn.text, _tenants.c.key_management == KeyManagement.SELF.value
            )
        )
        return TenantId(rows[0]["tenant_id"]) if rows else None

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        """See ports.TenantRegistry."""
        rows = await self._ask(
            select(_tenants).where(_tenants.c.tenant_id > start_after).order_by(_tenants.c.tenant_id).limit(limit)
        )
        return [_from_row(row) for row in rows]

    async def _find(self, tenant_id: TenantId) -> Tenant | None:
        rows = await self._ask(select(_tenants).where(_tenants.c.tenant_id == tenant_id))
        return _from_row(rows[0]) if rows else None

    async def _standing_instead_of(self, tenant: Tenant) -> Tenant:
        standing = await self._find(tenant.tenant_id)
        if standing is None:  # so it was the key, and whose it is is nobody else's business
            raise KmsKeyInUseError(
                "The KMS key is bound to a tenant already. Each tenant brings a key of its own.",
                tenant_id=tenant.tenant_id,
                key_arn=tenant.key_arn.text,
            )
        if not standing.same_choice(tenant):
            raise TenantExistsError(
                "The tenant is registered already, with another name, key or data centre. These are permanent.",
                tenant_id=tenant.tenant_id,
            )
        return standing

    async def _ask(self, statement: Executable) -> Sequence[RowMapping]:
        """Run a statement to its end, also when the caller is cancelled.

        Else SQLAlchemy throws the connection away, and aiosqlite leaks one that it is just opening. The timeouts of
        registry_database bound it. Raises IntegrityError, RegistryUnavailableError.
        """
        task = asyncio.create_task(self._execute(statement))
        self._asking.add(task)
        task.add_done_callback(self._answered)
        await asyncio.wait((task,))
        return task.result()

    def _answered(self, task: asyncio.Task[Sequence[RowMapping]]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else may look

    async def _execute(self, statement: Executable) -> Sequence[RowMapping]:
        with explained():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement)
                return result.mappings().all() if result.returns_rows else ()


def _to_row(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant_id": tenant.tenant_id,
        "display_name": tenant.display_name,
        "key_management": tenant.key_management.value,
        "kms_key_arn": tenant.key_arn.text,
        "data_center": tenant.data_center,
        "create_time": tenant.create_time,
    }


def _from_row(row: RowMapping) -> Tenant:
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        display_name=row["display_name"],
        key_management=KeyManagement(row["key_management"]),
        key_arn=KeyArn.parse(row["kms_key_arn"]),
        data_center=row["data_center"],
        create_time=row["create_time"],
    )
