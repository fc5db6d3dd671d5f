"""What all replicas saw of the tenants' own keys, in the registry's database.

The promise: no change of state that reached the database is lost or told twice, whichever replicas write at once; an
observation that comes late changes nothing that was seen after it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keystow_service.adapters.registry_database import Database
from keystow_service.adapters.registry_tables import (
    health_of,
    health_row,
    key_health,
    key_state_changes,
    observation_of,
    observation_row,
    tenant_of,
    tenants,
)
from keystow_service.errors import RegistryUnavailableError
from keystow_service.model import KeyHealth, KeyHealthStep, KeyManagement, KeyObservation, Tenant, TenantId

_ATTEMPTS = 8  # each fails only because another replica's has succeeded


class SqlKeyHealth:
    """A KeyHealthRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def observe(self, tenant_id: TenantId, seen: KeyObservation) -> KeyHealthStep:
        """See ports.KeyHealthRecords."""
        for _ in range(_ATTEMPTS):
            try:
                step = await self._database.transact(lambda connection: _observe(connection, tenant_id, seen))
            except IntegrityError:  # another replica's was the first
                continue
            if step is not None:
                return step
        raise RegistryUnavailableError("The tenant registry is too busy. Try again.", retry_after=1.0)

    async def of(self, tenant_ids: Sequence[TenantId]) -> Mapping[TenantId, KeyHealth]:
        """See ports.KeyHealthRecords."""
        rows = await self._database.ask(select(key_health).where(key_health.c.tenant_id.in_(tenant_ids)))
        return {TenantId(row["tenant_id"]): health_of(row) for row in rows}

    async def changes(self, tenant_id: TenantId) -> Sequence[KeyObservation]:
        """See ports.KeyHealthRecords."""
        rows = await self._database.ask(
            select(key_state_changes).where(key_state_changes.c.tenant_id == tenant_id).order_by(key_state_changes.c.id)
        )
        return [observation_of(row) for row in rows]

    async def unobserved(
        self, since: datetime, data_center: str, *, start_after: str = "", limit: int
    ) -> Sequence[Tenant]:
        """See ports.KeyHealthRecords."""
        rows = await self._database.ask(
            select(tenants)
            .outerjoin(key_health)
            .where(
                tenants.c.key_management == KeyManagement.SELF.value,
                tenants.c.data_center == data_center,
                tenants.c.tenant_id > start_after,
                or_(key_health.c.time.is_(None), key_health.c.time < since),
            )
            .order_by(tenants.c.tenant_id)
            .limit(limit)
        )
        return [tenant_of(row) for row in rows]


async def _observe(connection: AsyncConnection, tenant_id: TenantId, seen: KeyObservation) -> KeyHealthStep | None:
    """None if another replica has written in between."""
    found = await connection.execute(select(key_health).where(key_health.c.tenant_id == tenant_id))
    row = found.mappings().first()
    step = KeyHealthStep.of(health_of(row) if row else None, seen)
    values = health_row(step.after)
    if row is None:
        await connection.execute(insert(key_health).values(tenant_id=tenant_id, revision=1, **values))
    else:
        written = await connection.execute(
            update(key_health)
            .where(key_health.c.tenant_id == tenant_id, key_health.c.revision == row["revision"])
            .values(revision=row["revision"] + 1, **values)
        )
        if written.rowcount == 0:
            return None
    if step.changes_state:
        await connection.execute(
            insert(key_state_changes).values(tenant_id=tenant_id, **observation_row(step.after.newest))
        )
    return step
