"""Which operations of KMS showed the state of a key: it grants them apart."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what was seen before, it is not known."""
    op.add_column("key_health", sa.Column("shown_by", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    """Never: the history of the keys is kept."""
    raise NotImplementedError
