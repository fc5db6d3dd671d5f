"""What was seen of the tenants' own keys, and each change of state."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the two tables."""
    tenant_id = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
    observation = (
        ("state", sa.String(32), False),
        ("time", sa.DateTime(timezone=True), False),
        ("reason", sa.String(64), False),
        ("request_id", sa.String(128), False),
        ("deletion_time", sa.DateTime(timezone=True), True),
    )
    op.create_table(
        "key_health",
        sa.Column("tenant_id", tenant_id, sa.ForeignKey("tenants.tenant_id"), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        *(sa.Column(name, kind, nullable=nullable) for name, kind, nullable in observation),
        sa.Column("since_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_success_time", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_key_health_time", "key_health", ["time"])
    op.create_table(
        "key_state_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("tenant_id", tenant_id, sa.ForeignKey("tenants.tenant_id"), nullable=False),
        *(sa.Column(name, kind, nullable=nullable) for name, kind, nullable in observation),
    )
    op.create_index("ix_key_state_changes_tenant_id", "key_state_changes", ["tenant_id"])


def downgrade() -> None:
    """Never: the history of the keys is kept."""
    raise NotImplementedError
