"""what is asked of a run

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("earlier", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("asked", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("asked_by", sa.Text(), nullable=True))


def downgrade() -> None:
    for name in ("asked_by", "asked", "earlier"):
        op.drop_column("run", name)
