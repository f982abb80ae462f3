"""Who runs a run: claims with epoch and lease, on the database's clock.

A run can be claimed when it is due and nobody holds it: pending, waiting or retrying with `due_at` reached and no
lease, or in any of these states, or running, with a lease that has ended. Each claim raises the epoch, so that writes
of an earlier holder are refused from then on.

`run.attempt` counts the claims that ended without a word: an orderly end of a claim (`give_back`) takes its own off
again. A run whose claims all died `run_attempts` times over kills its workers, and is given up as crashed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import Instant, microseconds
from penstock.flows.states import State
from penstock.services.database import Database, StaleEpochError, clock
from penstock.services.database.prepared import Prepared, Row, one_of
from penstock.services.database.tables import IS_HELD, WAITS_FOR_TIME, WAITS_FOR_WORKER, run
from penstock.services.runs import FORMAT, TransitionError, change_state, recorded_calls

_BATCH = 100  # claims of one transaction
_OF_CLAIM = (
    *("id", "namespace", "flow", "parameters", "nonce", "retries", "earlier", "epoch"),
    *("firing_id", "lane", "step", "correlationid", "causationid", "traceparent", "hops"),
)
_COLUMNS = (*_OF_CLAIM, "state", "attempt", "worker", "limits", "report", "priority", "due_at")


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours while its lease lasts.

    epoch: carried by every write.  state: pending, waiting or retrying.  tries: 1 for the first time that its code
    runs.  earlier: those before a person had it tried again.  limits: named by the run itself; those of its flow come
    on top.  recorded: results of finished task calls.
    at: when it was claimed, on the database's clock.
    """

    id: str
    namespace: str
    flow: str
    epoch: int
    state: State
    attempt: int
    retries: int
    parameters: str
    nonce: str
    limits: tuple[str, ...]
    recorded: Mapping[str, bytes]
    firing_id: str | None
    lane: str | None
    step: str | None
    report: bool
    correlationid: str | None
    causationid: str | None
    traceparent: str | None
    hops: int
    at: Instant = 0
    earlier: int = 0

    @property
    def tries(self) -> int:
        """How often its code has been begun, this time included."""
        return self.earlier + self.attempt + self.retries


@dataclass(frozen=True, slots=True)
class Given:
    """What one look for due runs gave.

    crashed: rows of runs that were given up; their ends are to be told.  stopped: likewise of runs that became what a
    person had asked of a worker that has died since.
    """

    claimed: list[ClaimedRun]
    crashed: list[Row]
    more: bool  # there may be more that are due
    stopped: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Claimer:
    """Who claims: a worker of one namespace and pool, and the flows that it has; it leaves other runs to others.

    attempts: claims of one run that may end without a word before it is given up.
    """

    worker: str
    namespace: str
    pool: str
    flows: tuple[str, ...]
    lease: timedelta
    attempts: int

    @property
    def actor(self) -> str:
        """As rows name it."""
        return f"worker/{self.worker}"


async def claim(database: Database, claimer: Claimer, limit: int) -> Given:
    """Claim up to `limit` due runs: the highest priority first, then the longest due.

    A run whose holder let its lease end goes back to pending first, as a change of its own; after
    `claimer.attempts` such claims it becomes crashed instead.
    """
    rows = await _take(database, claimer, min(limit, _BATCH))
    if all(row["epoch"] == 1 for row in rows):  # none has been claimed before: there is nothing to put right or replay
        return Given([_claimed(row, {}) for row in rows], [], len(rows) == limit)
    async with database.begin() as connection:
        kept, crashed, stopped = await _put_right(connection, claimer, rows)
        recorded = await recorded_calls(connection, [row["id"] for row in kept])
    return Given([_claimed(row, recorded.get(row["id"], {})) for row in kept], crashed, len(rows) == limit, stopped)


async def _take(database: Database, claimer: Claimer, limit: int) -> list[Row]:
    """Raise the epochs.  Returns the rows as they were but for the epoch, and `now`; in order."""
    wanted = {"pool": claimer.pool, "namespace": claimer.namespace, "flows": list(claimer.flows), "most": limit}
    holding = {"holder": claimer.worker, "lease": microseconds(claimer.lease)}
    if not database.is_sqlite:
        found = await database.alone(_take_at_once, **wanted, **holding)
        return sorted(found, key=lambda row: (-row["priority"], row["due_at"], row["id"]))
    async with database.begin() as connection:
        found = await _due.fetch(connection, **wanted)
        await _take_each.many(connection, [holding | {"run_": row["id"]} for row in found])
    return [{**row, "epoch": row["epoch"] + 1} for row in found]


async def _put_right(
    connection: AsyncConnection, claimer: Claimer, rows: Sequence[Row]
) -> tuple[list[Row], list[Row], list[Row]]:
    """End what those that held them before have left.  Returns the rows to go on with, those given up, those stopped.

    Whoever dies before this has committed has claimed the runs, and no more: the next one finds the same.
    """
    kept, crashed, stopped = [], [], []
    for row in rows:
        with suppress(StaleEpochError, TransitionError):  # an operator has moved it since
            if row["worker"] is not None and row["state"] != State.PENDING:
                taken = await _take_over(connection, row, claimer)
                if taken["state"] != State.PENDING:
                    stopped.append(taken)
                    continue
            if row["attempt"] < claimer.attempts:
                kept.append(row)
            else:
                crashed.append(await _give_up(connection, row, claimer.actor))
    return kept, crashed, stopped


async def _take_over(connection: AsyncConnection, row: Row, claimer: Claimer) -> Row:
    """Pending again, and held by the claimer all the same; or what a person had asked for.  Returns its row."""
    detail, actor = f"the lease of worker {row['worker']} ended", claimer.actor
    held = {"worker": claimer.worker, "lease_until": row["now"] + microseconds(claimer.lease)}
    return await change_state(connection, row["id"], row["epoch"], State.PENDING, detail=detail, actor=actor, **held)


async def renew(connection: AsyncConnection, worker: str, lease: timedelta, held: Mapping[str, int]) -> set[str]:
    """Extend the leases of the runs held (id → epoch).  Returns those that are still ours.

    Only what the caller knows of is renewed: a claim whose answer was lost must come free again.
    """
    values = {"lease_until": clock.now() + microseconds(lease)}
    where = (run.c.id.in_(sorted(held)), run.c.worker == worker)
    found = await connection.execute(sa.update(run).where(*where).values(values).returning(run.c.id, run.c.epoch))
    return {row.id for row in found if held[row.id] == row.epoch}


async def give_back(
    connection: AsyncConnection,
    claimed: ClaimedRun,
    new: State,
    *,
    wait: timedelta = timedelta(0),
    detail: str = "",
    actor: str = "system",
    **columns: Any,
) -> bool:
    """End a claim in good order: the run becomes `new` and due again after `wait`.  Returns whether it changed state.

    A run that is in this state already (parked again, say) stays there, with its new due time: no change, no event.
    Raises StaleEpochError.
    """
    values: dict[str, Any] = {"attempt": claimed.attempt - 1} | columns
    unchanged = (run.c.id == claimed.id, run.c.epoch == claimed.epoch, run.c.state == new.value)
    due = clock.now() + microseconds(wait)
    quiet = sa.update(run).where(*unchanged).values(worker=None, lease_until=0, due_at=due, **values)
    if claimed.state is new and (await connection.execute(quiet)).rowcount:
        return False
    await change_state(connection, claimed.id, claimed.epoch, new, detail=detail, actor=actor, due_in=wait, **values)
    return True


def _due_ones(*where: sa.ColumnElement[bool]) -> sa.Subquery:
    """Free rows that are due, in order, locked; those that somebody else is claiming now are passed over."""
    # As a subquery the clock is read once, and indexes on times can be used.
    now = sa.select(clock.now()).scalar_subquery()
    ours = (run.c.pool == sa.bindparam("pool"), run.c.namespace == sa.bindparam("namespace"))
    able = (one_of(run.c.flow, "flows"), run.c.format <= FORMAT)
    columns = (run.c.id, run.c.priority, run.c.due_at, run.c.worker)
    query = sa.select(*columns).where(*where, run.c.due_at <= now, run.c.lease_until <= now, *ours, *able)
    query = query.order_by(run.c.priority.desc(), run.c.due_at, run.c.id).limit(_most)
    return query.with_for_update(skip_locked=True).subquery()


def claimable() -> sa.Select[Any]:
    """The rows to claim, each kind by an index of its own: an index of all would be full of those that have ended."""
    kinds = [
        sa.select(_due_ones(WAITS_FOR_WORKER)),
        sa.select(_due_ones(WAITS_FOR_TIME)),
        sa.select(_due_ones(IS_HELD)),
    ]
    found = sa.union_all(*kinds).subquery()
    return sa.select(found).order_by(found.c.priority.desc(), found.c.due_at, found.c.id).limit(_most)


def _taking() -> dict[str, Any]:
    lease = clock.now() + sa.bindparam("lease", type_=sa.BigInteger())
    raised = {"epoch": run.c.epoch + 1, "attempt": run.c.attempt + 1}
    return raised | {"worker": sa.bindparam("holder", type_=sa.Text()), "lease_until": lease}


_most = sa.bindparam("most", type_=sa.BigInteger())
_picked = claimable().cte("picked")
_as_it_was = [(run.c.attempt - 1).label("attempt"), _picked.c.worker]
_told = [run.c[name] for name in _COLUMNS if name not in ("attempt", "worker")]
_now = clock.now().label("now")
_take_at_once = Prepared(
    sa.update(run).where(run.c.id == _picked.c.id).values(_taking()).returning(*_told, *_as_it_was, _now)
)
_chosen = claimable().subquery()
_due = Prepared(
    sa.select(*(run.c[name] for name in _COLUMNS), _now)
    .join(_chosen, run.c.id == _chosen.c.id)
    .order_by(run.c.priority.desc(), run.c.due_at, run.c.id)
)
_take_each = Prepared(sa.update(run).where(run.c.id == sa.bindparam("run_")).values(_taking()))


async def _give_up(connection: AsyncConnection, row: Row, actor: str) -> Row:
    detail = f"given up: claimed {row['attempt']} times, and each time its worker or its process died without a word"
    if row["state"] in (State.WAITING, State.RETRYING) and row["worker"] is None:  # due in good order
        await change_state(connection, row["id"], row["epoch"], State.PENDING, actor=actor)
    return await change_state(
        connection, row["id"], row["epoch"], State.CRASHED, detail=detail, actor=actor, error=detail
    )


def _claimed(row: Row, recorded: Mapping[str, bytes]) -> ClaimedRun:
    """The run as it is after the claim."""
    state = State.PENDING if row["worker"] is not None else State(row["state"])
    after = {"attempt": row["attempt"] + 1, "state": state, "recorded": recorded, "at": row["now"]}
    read = {"limits": tuple(json.loads(row["limits"])), "report": bool(row["report"])}
    return ClaimedRun(**{name: row[name] for name in _OF_CLAIM} | after | read)
