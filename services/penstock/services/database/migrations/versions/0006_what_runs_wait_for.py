"""what runs wait for, and how their calls hang together

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NEW = {"journal": ("parent", "label", "takes", "source"), "run": ("name", "source", "waiting_for")}


def upgrade() -> None:
    for table, names in _NEW.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Text(), nullable=True))
    for name in ("run_id", "call"):
        op.add_column("approval", sa.Column(name, sa.Text(), nullable=True))
    op.create_index("ix_approval_run_id", "approval", ["run_id"])
    op.create_table(
        "run_wait",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), server_default="default", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=True),
        sa.Column("format", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "call"),
    )
    for name, column, status in (("untold", "answered", "matched"), ("open", "expires_at", "open")):
        where = sa.text(f"status = '{status}'")
        op.create_index(f"ix_run_wait_{name}", "run_wait", [column], postgresql_where=where, sqlite_where=where)
    op.create_table(
        "wait_position",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), server_default="default", nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("joined", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "call", "topic", "partition"),
    )
    op.create_index("ix_wait_position_topic_partition_joined", "wait_position", ["topic", "partition", "joined"])
    new, columns = sa.text("joined = 0"), ["topic", "partition"]
    op.create_index("ix_wait_position_new", "wait_position", columns, postgresql_where=new, sqlite_where=new)


def downgrade() -> None:
    op.drop_table("wait_position")
    op.drop_table("run_wait")
    op.drop_index("ix_approval_run_id", "approval")
    for name in ("run_id", "call"):
        op.drop_column("approval", name)
    for table, names in _NEW.items():
        for name in names:
            op.drop_column(table, name)
