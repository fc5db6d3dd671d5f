"""The registry's tables as this release has them, and how rows become the words of model.py.

migrations/ makes and changes them; a test holds the two to each other.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    TypeDecorator,
)

from keystow_service.model import (
    KeyArn,
    KeyHealth,
    KeyManagement,
    KeyObservation,
    KeyState,
    KmsOperation,
    Tenant,
    TenantId,
)


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

# "C": ids sort by their bytes, as everywhere else.
_TENANT_ID = String(63).with_variant(String(63, collation="C"), "postgresql")

tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", _TENANT_ID, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("key_management", String(16), nullable=False),
    Column("kms_key_arn", String(256), nullable=False),
    Column("data_center", String(63), nullable=False),
    Column("create_time", _UtcDateTime, nullable=False),
    # The identity of a self-managed key, which serves one tenant. NULL, which is never equal, for the provider's keys.
    Column("own_key", String(64)),
    CheckConstraint("key_management IN ('provider', 'self')", name="tenants_key_management"),
    Index("tenants_own_key", "own_key", unique=True),
)

# The newest observation of each tenant's own key.
key_health = Table(
    "key_health",
    metadata,
    Column("tenant_id", _TENANT_ID, ForeignKey("tenants.tenant_id"), primary_key=True),
    # Grows by one with each write, so that of two replicas that read the same row one writes.
    Column("revision", BigInteger, nullable=False),
    Column("state", String(32), nullable=False),
    Column("time", _UtcDateTime, nullable=False, index=True),
    Column("reason", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("deletion_time", _UtcDateTime),
    Column("since_time", _UtcDateTime, nullable=False),
    Column("last_success_time", _UtcDateTime),
    # The operations of KMS that last showed the state, between spaces.
    Column("shown_by", String(64), nullable=False, server_default=""),
)

# The observations that showed another state. Only ever added to.
key_state_changes = Table(
    "key_state_changes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("tenant_id", _TENANT_ID, ForeignKey("tenants.tenant_id"), nullable=False, index=True),
    Column("state", String(32), nullable=False),
    Column("time", _UtcDateTime, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("deletion_time", _UtcDateTime),
)


def tenant_row(tenant: Tenant) -> dict[str, Any]:
    """What ``tenants`` holds of a tenant."""
    return {
        "tenant_id": tenant.tenant_id,
        "display_name": tenant.display_name,
        "key_management": tenant.key_management.value,
        "kms_key_arn": tenant.key_arn.text,
        "data_center": tenant.data_center,
        "create_time": tenant.create_time,
        "own_key": tenant.key_arn.identity if tenant.key_management is KeyManagement.SELF else None,
    }


def tenant_of(row: RowMapping) -> Tenant:
    """The tenant of a row."""
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        display_name=row["display_name"],
        key_management=KeyManagement(row["key_management"]),
        key_arn=KeyArn.parse(row["kms_key_arn"]),
        data_center=row["data_center"],
        create_time=row["create_time"],
    )


def observation_row(seen: KeyObservation) -> dict[str, Any]:
    """What ``key_health`` and ``key_state_changes`` hold of an observation."""
    return {
        "state": seen.state.value,
        "time": seen.time,
        "reason": seen.reason,
        "request_id": seen.request_id,
        "deletion_time": seen.deletion_time,
    }


def observation_of(row: RowMapping) -> KeyObservation:
    """The observation of a row of either."""
    return KeyObservation(KeyState(row["state"]), row["time"], row["reason"], row["request_id"], row["deletion_time"])


def health_of(row: RowMapping) -> KeyHealth:
    """The health of a row of ``key_health``."""
    shown_by = frozenset(map(KmsOperation, row["shown_by"].split()))
    return KeyHealth(observation_of(row), row["since_time"], row["last_success_time"], shown_by)


def health_row(health: KeyHealth) -> dict[str, Any]:
    """What ``key_health`` holds of a key's health."""
    return {
        **observation_row(health.newest),
        "since_time": health.since_time,
        "last_success_time": health.last_success_time,
        "shown_by": " ".join(sorted(operation.value for operation in health.shown_by)),
    }
