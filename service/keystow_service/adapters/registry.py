"""The tenant registry in a SQL database: SQLite in the deployment's own folder, or a PostgreSQL that replicas share.

The promise: a tenant's choice is written once and for good, whoever else tries at the same time in whatever process,
because the database's own constraints decide; and what the database cannot answer is an error, never "no such tenant".
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import and_, insert, or_, select
from sqlalchemy.exc import IntegrityError

from keystow_service.adapters.registry_database import Database, open_database
from keystow_service.adapters.registry_key_health import SqlKeyHealth
from keystow_service.adapters.registry_tables import tenant_of, tenant_row, tenants
from keystow_service.errors import KmsKeyInUseError, TenantExistsError, TenantNotFoundError
from keystow_service.model import KeyArn, KeyManagement, Tenant, TenantId


@asynccontextmanager
async def open_registry(url: str) -> AsyncIterator["SqlRegistry"]:
    """The registry at a SQLAlchemy URL: sqlite+aiosqlite:///data/registry.db, postgresql+asyncpg://user:password@host/name.

    Its schema is made on first use and brought up to this release's, by one process at a time. Raises
    RegistryUnavailableError, whose message is the operator's.
    """
    database = await open_database(url)
    try:
        yield SqlRegistry(database)
    finally:
        await database.aclose()


class SqlRegistry:
    """A TenantRegistry."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.key_health = SqlKeyHealth(database)

    async def get(self, tenant_id: TenantId) -> Tenant:
        """See ports.TenantRegistry."""
        tenant = await self._find(tenant_id)
        if tenant is None:
            raise TenantNotFoundError("There is no such tenant. RegisterTenant makes it.", tenant_id=tenant_id)
        return tenant

    async def add(self, tenant: Tenant) -> Tenant:
        """See ports.TenantRegistry."""
        try:
            await self._database.ask(insert(tenants).values(tenant_row(tenant)))
        except IntegrityError:
            return await self._standing_instead_of(tenant)
        return tenant

    async def key_in_use(self, arn: KeyArn, *, besides: TenantId) -> bool:
        """See ports.TenantRegistry."""
        providers = and_(
            tenants.c.key_management == KeyManagement.PROVIDER.value,
            tenants.c.kms_key_arn.endswith(f":{arn.identity}", autoescape=True),
        )
        rows = await self._database.ask(
            select(tenants.c.tenant_id)
            .where(or_(tenants.c.own_key == arn.identity, providers), tenants.c.tenant_id != besides)
            .limit(1)
        )
        return bool(rows)

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        """See ports.TenantRegistry."""
        rows = await self._database.ask(
            select(tenants).where(tenants.c.tenant_id > start_after).order_by(tenants.c.tenant_id).limit(limit)
        )
        return [tenant_of(row) for row in rows]

    async def _find(self, tenant_id: TenantId) -> Tenant | None:
        rows = await self._database.ask(select(tenants).where(tenants.c.tenant_id == tenant_id))
        return tenant_of(rows[0]) if rows else None

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
