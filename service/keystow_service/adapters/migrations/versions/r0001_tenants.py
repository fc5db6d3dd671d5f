"""Tenants and their permanent choices."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and the index that lets a self-managed key serve one tenant only."""
    op.create_table(
        "tenants",
        # "C": ids sort by their bytes, as everywhere else.
        sa.Column(
            "tenant_id", sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql"), primary_key=True
        ),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("key_management", sa.String(16), nullable=False),
        sa.Column("kms_key_arn", sa.String(256), nullable=False),
        sa.Column("data_center", sa.String(63), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("key_management IN ('provider', 'self')", name="tenants_key_management"),
    )
    op.create_index(
        "tenants_self_managed_key",
        "tenants",
        ["kms_key_arn"],
        unique=True,
        sqlite_where=sa.text("key_management = 'self'"),
        postgresql_where=sa.text("key_management = 'self'"),
    )


def downgrade() -> None:
    """Never: tenants' choices are permanent."""
    raise NotImplementedError
