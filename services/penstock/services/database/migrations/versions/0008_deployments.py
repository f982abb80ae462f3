"""deployments

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NEW_OF_RUN = (("deployment", sa.Text()), ("version", sa.Text()), ("tags", sa.Text()), ("gate", sa.BigInteger()))


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("namespace", sa.Text(), server_default="default", nullable=False),
        *(_text(name) for name in ("name", "flow", "module", "pool", "parameters", "parameter_schema")),
        *(sa.Column(name, sa.Text(), server_default="[]", nullable=False) for name in ("limits", "tags")),
        sa.Column("paused", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("concurrency", sa.BigInteger(), nullable=True),
        sa.Column("when_full", sa.Text(), server_default="queue", nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        *(_text(name) for name in ("digest", "definition", "origin", "actor")),
        sa.Column("format", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    op.create_table(
        "deployment_schedule",
        sa.Column("namespace", sa.Text(), server_default="default", nullable=False),
        *(_text(name) for name in ("deployment", "id", "spec", "parameters")),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "deployment", "id"),
    )
    op.create_index("ix_deployment_schedule_next_at", "deployment_schedule", ["next_at"])
    op.add_column("flow", sa.Column("version", sa.Text(), nullable=True))
    for name, kind in _NEW_OF_RUN:
        op.add_column("run", sa.Column(name, kind, nullable=True))
    _index("ix_run_deployment", "deployment IS NOT NULL")
    _index("ix_run_place", "gate IS NOT NULL AND ended IS NULL")


def downgrade() -> None:
    for name in ("ix_run_place", "ix_run_deployment"):
        op.drop_index(name, "run")
    for name, _ in _NEW_OF_RUN:
        op.drop_column("run", name)
    op.drop_column("flow", "version")
    op.drop_table("deployment_schedule")
    op.drop_table("deployment")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _index(name: str, where: str) -> None:
    columns = ["namespace", "deployment", "created"]
    op.create_index(name, "run", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
