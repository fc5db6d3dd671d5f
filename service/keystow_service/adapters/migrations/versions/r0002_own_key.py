"""A self-managed key serves one tenant, whichever of its regions the tenant names."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Know self-managed keys by account and key id, which are the last 53 characters of every ARN."""
    op.add_column("tenants", sa.Column("own_key", sa.String(64)))
    op.execute(
        "UPDATE tenants SET own_key = substr(kms_key_arn, length(kms_key_arn) - 52) WHERE key_management = 'self'"
    )
    op.drop_index("tenants_self_managed_key", "tenants")
    op.create_index("tenants_own_key", "tenants", ["own_key"], unique=True)


def downgrade() -> None:
    """Never: tenants' choices are permanent."""
    raise NotImplementedError
