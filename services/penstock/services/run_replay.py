"""What of its journal a run that has ended does not replay when it is tried again: calls that were undone.

When a flow fails or is cancelled, its finished tasks with `on_rollback` are undone, by calls named `TASK.rollback`. The
next try has to do such a task again, and to be able to undo it again: both records go. A task that could not be undone
is still done, and keeps its record.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.flows.journal import ROOT, call_key
from penstock.flows.results import digest_arguments
from penstock.flows.states import State
from penstock.services.database.tables import journal

_ROLLBACK = ".rollback"
_BATCH = 500  # keys of one statement


async def forget_undone(connection: AsyncConnection, run_id: str) -> int:
    """Remove the records of calls that were undone, and of what undid them.  Returns how many."""
    query = sa.select(journal.c.call, journal.c.name, journal.c.state).where(journal.c.run_id == run_id)
    if not (await connection.execute(query.where(journal.c.name.endswith(_ROLLBACK)).limit(1))).first():
        return 0
    calls = [(row.call, row.name, State(row.state)) for row in await connection.execute(query)]
    gone = undone(calls)
    for start in range(0, len(gone), _BATCH):
        some = journal.c.call.in_(gone[start : start + _BATCH])
        await connection.execute(sa.delete(journal).where(journal.c.run_id == run_id, some))
    return len(gone)


def undone(calls: Iterable[tuple[str, str, State]]) -> list[str]:
    """The keys of calls (key, name, state) that were undone, and of what undid them."""
    known = list(calls)
    rollbacks = {key: (name, state) for key, name, state in known if name.endswith(_ROLLBACK)}
    undone_names = {name for name, state in rollbacks.values() if state is State.COMPLETED}
    failed = {key for key, (_, state) in rollbacks.items() if state is not State.COMPLETED}

    def is_undone(key: str, name: str) -> bool:
        undo = name + _ROLLBACK
        return undo in undone_names and call_key(ROOT, undo, digest_arguments({"call": key}), 0) not in failed

    return [key for key, name, _ in known if key in rollbacks or is_undone(key, name)]
