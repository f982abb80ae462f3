"""whose turn it is: queues, and the rank by which runs are claimed

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PENDING = "state = 'pending'"
# As services/turns.py says it. In a trigger, so that the ways on which runs are made need not look at those there are,
# and a run made by a process of the release before has its rank, too.
_PLAIN = "NEW.due_at - 60000000 * NEW.priority"
_SAME = """(SELECT max(rank) + 60000000 FROM run WHERE state = 'pending' AND id <> NEW.id
    AND pool = NEW.pool AND namespace = NEW.namespace AND flow = NEW.flow
    AND fairness_key = NEW.fairness_key AND priority = NEW.priority)"""
_FUNCTION = f"""CREATE FUNCTION penstock_rank_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.rank := GREATEST({_PLAIN}, {_SAME});
  RETURN NEW;
END $$"""
_ON_POSTGRESQL = "CREATE TRIGGER run_rank BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION penstock_rank_run()"
_RANKED = f"max({_PLAIN}, coalesce({_SAME}, {_PLAIN}))"
_ON_SQLITE = f"""CREATE TRIGGER run_rank AFTER INSERT ON run BEGIN
  UPDATE run SET rank = {_RANKED} WHERE id = NEW.id;
END"""  # noqa: S608 -- of constants


def upgrade() -> None:
    op.add_column("run", sa.Column("queue", sa.Text, nullable=False, server_default="default"))
    op.add_column("run", sa.Column("fairness_key", sa.Text, nullable=False, server_default=""))
    op.add_column("run", sa.Column("rank", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE run SET rank = due_at - 60000000 * priority WHERE ended IS NULL")
    _index("ix_run_ranked", ["pool", "rank", "id"])
    _index("ix_run_same", ["pool", "namespace", "flow", "fairness_key", "priority", "rank"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute(_ON_SQLITE)
    else:
        op.execute(_FUNCTION)
        op.execute(_ON_POSTGRESQL)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER run_rank")
    else:
        op.execute("DROP TRIGGER run_rank ON run")
        op.execute("DROP FUNCTION penstock_rank_run()")
    for name in ("ix_run_ranked", "ix_run_same"):
        op.drop_index(name, "run")
    for name in ("queue", "fairness_key", "rank"):
        op.drop_column("run", name)


def _index(name: str, columns: list[str]) -> None:
    op.create_index(name, "run", columns, postgresql_where=sa.text(_PENDING), sqlite_where=sa.text(_PENDING))
