"""whom a claim looks for

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PENDING, _PARKED, _RUNNING = "state = 'pending'", "state IN ('waiting', 'retrying')", "state = 'running'"


def upgrade() -> None:
    # Before, one index had all runs: those that had ended weighed on each claim until a vacuum.
    op.drop_index("ix_run_pool_state_due_at", "run")
    _index("ix_run_pending", ["pool", sa.text("priority DESC"), "due_at", "id"], _PENDING)
    _index("ix_run_parked", ["pool", "due_at"], _PARKED)
    _index("ix_run_held", ["pool", "lease_until"], _RUNNING)


def downgrade() -> None:
    for name in ("ix_run_pending", "ix_run_parked", "ix_run_held"):
        op.drop_index(name, "run")
    op.create_index("ix_run_pool_state_due_at", "run", ["pool", "state", "due_at"])


def _index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    op.create_index(name, "run", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
