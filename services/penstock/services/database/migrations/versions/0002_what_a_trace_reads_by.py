"""what a trace reads by

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INDEXES = (
    ("decision", "correlationid"),
    ("run", "correlationid"),
    ("delivery", "correlationid"),
    ("approval", "firing_id"),
)


def upgrade() -> None:
    for table, column in _INDEXES:
        op.create_index(f"ix_{table}_{column}", table, [column])
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE INDEX ix_decision_events ON decision USING gin ((events::jsonb) jsonb_path_ops)")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.drop_index("ix_decision_events", "decision")
    for table, column in _INDEXES:
        op.drop_index(f"ix_{table}_{column}", table)
