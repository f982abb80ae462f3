"""The two changes of state that every run makes, for many runs with one statement: it begins to run, and it ends.

On PostgreSQL alone. A claim knows all that such a change depends on, so nothing has to be read; should a row be
another one by now, nothing of the batch is written, and each change goes its longer way (`runs.change_state`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from penstock.events.errors import PenstockError
from penstock.events.instants import Instant
from penstock.flows.states import State
from penstock.services.database import Database
from penstock.services.database.late import Writes, write_all_or_nothing
from penstock.services.database.prepared import Bulk
from penstock.services.runs import tell_changes

_NAMES = ("id", "epoch", "seq", "state", "at", "source", "version", "result", "error")
_KINDS = ("text", "bigint", "bigint", "text", "bigint", "text", "text", "text", "text")
_SET = """UPDATE run SET state = given.state, seq = given.seq, waiting_for = NULL,
  started = CASE WHEN given.state = 'running' THEN coalesce(run.started, given.at) ELSE run.started END,
  ended = CASE WHEN given.state <> 'running' THEN given.at END,
  worker = CASE WHEN given.state = 'running' THEN run.worker END,
  lease_until = CASE WHEN given.state = 'running' THEN run.lease_until ELSE 0 END,
  source = coalesce(run.source, given.source), version = coalesce(given.version, run.version),
  result = CASE WHEN given.state = 'running' THEN run.result ELSE given.result END,
  error = CASE WHEN given.state = 'running' THEN run.error ELSE given.error END
FROM"""
# Rows are locked in the order of their ids, as where calls are journalled: so nobody waits for another in a ring.
_LOCKED = """, (SELECT id FROM run WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE) AS locked"""
_WHERE = """ WHERE locked.id = given.id AND run.id = given.id
  AND run.epoch = given.epoch AND run.seq = given.seq - 1 AND run.asked IS NULL
RETURNING run.id"""
_change = Bulk("run", _SET, _NAMES, _KINDS, _LOCKED + _WHERE)


class NotAsKnownError(PenstockError):
    """A run is not as its claim has left it; nothing was written."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change.

    row: the run as events tell of it after the change; `seq` is the number of the change.  state: running, or the end.
    at: when, on the database's clock.  source, version: of the code that begins.  result, error: of the end.
    """

    row: Mapping[str, Any]
    state: State
    at: Instant
    actor: str
    detail: str = ""
    source: str | None = None
    version: str | None = None
    result: str | None = None
    error: str | None = None


async def take_steps(database: Database, steps: Sequence[Step]) -> None:
    """Write all of these changes, each with its `run_event` and its event, or none.  Raises NotAsKnownError."""
    writes = Writes()
    for each in steps:
        told = {**each.row, "state": each.state.value, "now": each.at}
        tell_changes(writes, [told], [each.detail], each.actor)
    async with database.read() as connection:
        try:
            await write_all_or_nothing(connection, _change, [_given(each) for each in steps], writes)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "22012":  # division by zero
                raise
            raise NotAsKnownError(
                "a run has been claimed, moved or asked for since; its change is made alone"
            ) from None


def _given(step: Step) -> dict[str, Any]:
    found = {name: step.row[name] for name in ("id", "epoch", "seq")} | {"state": step.state.value, "at": step.at}
    return found | {name: getattr(step, name) for name in ("source", "version", "result", "error")}
