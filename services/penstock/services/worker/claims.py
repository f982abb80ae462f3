"""Who runs a run: claims with epoch and lease, on the database's clock.

A run can be claimed when it is due and nobody holds it: pending, waiting or retrying with `due_at` reached and no
lease, or in any of these states, or running, with a lease that has ended. Each claim raises the epoch, so that writes
of an earlier holder are refused from then on.

`run.attempt` counts the claims that ended without a word: an orderly end of a claim (`give_back`) takes its own off
again. A run whose claims all died `run_attempts` times over kills its workers, and is given up as crashed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.pools import Order
from penstock.events.instants import Instant, microseconds
from penstock.flows.sources import RecordedCall
from penstock.flows.states import State
from penstock.services.database import Database, StaleEpochError, clock
from penstock.services.database.prepared import Prepared, Row, one_of
from penstock.services.database.tables import IS_HELD, WAITS_FOR_TIME, WAITS_FOR_WORKER, run
from penstock.services.runs import FORMAT, Recorded, TransitionError, change_state, recorded_calls

_BATCH = 100  # claims of one transaction
_OF_CLAIM = (
    *("id", "namespace", "flow", "parameters", "nonce", "retries", "earlier", "epoch"),
    *("firing_id", "lane", "step", "correlationid", "causationid", "traceparent", "hops"),
    *("seq", "pool", "deployment"),
)
_NOTHING = Recorded({}, {})
_COLUMNS = (*_OF_CLAIM, *("source",), "state", "attempt", "worker", "limits", "report", "priority", "rank", "due_at")


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours while its lease lasts.

    epoch: carried by every write.  state: pending, waiting or retrying.  tries: 1 for the first time that its code
    runs.  earlier: those before a person had it tried again.  limits: named by the run itself; those of its flow come
    on top.  recorded: results of finished task calls.
    at: when it was claimed, on the database's clock.  calls: what is known of finished calls besides their results.
    source: digest of the flow's code that it was recorded with, "" where unknown.  seq: of its last change of state.
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
    calls: Mapping[str, RecordedCall] = field(default_factory=dict)
    source: str = ""
    earlier: int = 0
    seq: int = 0
    pool: str = "default"
    deployment: str | None = None

    @property
    def told(self) -> Row:
        """As events tell of it."""
        names = ("id", "namespace", "flow", "pool", "attempt", "retries", "epoch", "firing_id", "deployment")
        causes = ("correlationid", "causationid", "traceparent", "hops")
        return {name: getattr(self, name) for name in (*names, *causes)}

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

    attempts: claims of one run that may end without a word before it is given up.  queues: none: all of the pool.
    order: of the runs that wait.  patience: only runs that have been due for so long; others may take them before.
    """

    worker: str
    namespace: str
    pool: str
    flows: tuple[str, ...]
    lease: timedelta
    attempts: int
    queues: tuple[str, ...] = ()
    order: Order = Order.FAIR
    patience: timedelta = timedelta(0)

    @property
    def actor(self) -> str:
        """As rows name it."""
        return f"worker/{self.worker}"


async def claim(database: Database, claimer: Claimer, limit: int) -> Given:
    """Claim up to `limit` due runs, in the order of `claimer`.

    A run whose holder let its lease end goes back to pending first, as a change of its own; after
    `claimer.attempts` such claims it becomes crashed instead.
    """
    rows = await _take(database, claimer, min(limit, _BATCH))
    if all(row["epoch"] == 1 for row in rows):  # none has been claimed before: there is nothing to put right or replay
        return Given([_claimed(row, _NOTHING) for row in rows], [], len(rows) == limit)
    async with database.begin() as connection:
        kept, crashed, stopped = await _put_right(connection, claimer, rows)
        recorded = await recorded_calls(connection, [row["id"] for row in kept])
    claimed = [_claimed(row, recorded.get(row["id"], _NOTHING)) for row in kept]
    return Given(claimed, crashed, len(rows) == limit, stopped)


async def _take(database: Database, claimer: Claimer, limit: int) -> list[Row]:
    """Raise the epochs.  Returns the rows as they were but for the epoch, and `now`; in order."""
    wanted = {"pool": claimer.pool, "namespace": claimer.namespace, "flows": list(claimer.flows), "most": limit}
    wanted |= {"queues": list(claimer.queues)} if claimer.queues else {}
    wanted |= {"patience": microseconds(claimer.patience)} if claimer.patience else {}
    holding = {"holder": claimer.worker, "lease": microseconds(claimer.lease)}
    asking = _asking(claimer.order, bool(claimer.queues), bool(claimer.patience))
    if not database.is_sqlite:
        found = await database.alone(asking.take_at_once, **wanted, **holding)
        return sorted(found, key=_places[claimer.order])
    async with database.begin() as connection:
        found = await asking.due.fetch(connection, **wanted)
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
                row = {**row, "seq": taken["seq"]}
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


_places: Mapping[Order, Callable[[Row], tuple[Any, ...]]] = {
    Order.FAIR: lambda row: (row["rank"], row["id"]),
    Order.STRICT: lambda row: (-row["priority"], row["due_at"], row["id"]),
}


def _in_order(order: Order, of: Any) -> list[Any]:
    """As `_places`, for the columns `of` a query.  Each is what an index of waiting runs holds."""
    return [of.rank, of.id] if order is Order.FAIR else [of.priority.desc(), of.due_at, of.id]


def _due_ones(
    which: sa.ColumnElement[bool], order: Order, *where: sa.ColumnElement[bool], patient: bool
) -> sa.Subquery:
    """Free rows that are due, in order, locked; those that somebody else is claiming now are passed over."""
    # As a subquery the clock is read once, and indexes on times can be used.
    now = sa.select(clock.now()).scalar_subquery()
    ours = (run.c.pool == sa.bindparam("pool"), run.c.namespace == sa.bindparam("namespace"))
    able = (one_of(run.c.flow, "flows"), run.c.format <= FORMAT)
    columns = (run.c.id, run.c.rank, run.c.priority, run.c.due_at, run.c.worker)
    due = run.c.due_at <= (now - sa.bindparam("patience", type_=sa.BigInteger()) if patient else now)
    query = sa.select(*columns).where(which, *where, due, run.c.lease_until <= now, *ours, *able)
    query = query.order_by(*_in_order(order, run.c)).limit(_most)
    return query.with_for_update(skip_locked=True).subquery()


def claimable(order: Order = Order.FAIR, *, by_queue: bool = False, patient: bool = False) -> sa.Select[Any]:
    """The rows to claim, each kind by an index of its own: an index of all would be full of those that have ended."""
    queues = (one_of(run.c.queue, "queues"),) if by_queue else ()
    kinds = (WAITS_FOR_WORKER, WAITS_FOR_TIME, IS_HELD)
    found = sa.union_all(*(sa.select(_due_ones(kind, order, *queues, patient=patient)) for kind in kinds)).subquery()
    return sa.select(found).order_by(*_in_order(order, found.c)).limit(_most)


def _taking() -> dict[str, Any]:
    lease = clock.now() + sa.bindparam("lease", type_=sa.BigInteger())
    raised = {"epoch": run.c.epoch + 1, "attempt": run.c.attempt + 1}
    return raised | {"worker": sa.bindparam("holder", type_=sa.Text()), "lease_until": lease}


_most = sa.bindparam("most", type_=sa.BigInteger())
_now = clock.now().label("now")


@dataclass(frozen=True, slots=True)
class _Asking:
    """The statements of one way to ask. PostgreSQL takes at once; SQLite looks for what is due, and then takes it."""

    take_at_once: Prepared
    due: Prepared


@cache
def _asking(order: Order, by_queue: bool, patient: bool) -> _Asking:
    wanted = claimable(order, by_queue=by_queue, patient=patient)
    picked, chosen = wanted.cte("picked"), wanted.subquery()
    as_it_was = [(run.c.attempt - 1).label("attempt"), picked.c.worker]
    told = [run.c[name] for name in _COLUMNS if name not in ("attempt", "worker")]
    taking = sa.update(run).where(run.c.id == picked.c.id).values(_taking()).returning(*told, *as_it_was, _now)
    due = sa.select(*(run.c[name] for name in _COLUMNS), _now).join(chosen, run.c.id == chosen.c.id)
    return _Asking(Prepared(taking), Prepared(due.order_by(*_in_order(order, run.c))))


_take_each = Prepared(sa.update(run).where(run.c.id == sa.bindparam("run_")).values(_taking()))


async def _give_up(connection: AsyncConnection, row: Row, actor: str) -> Row:
    detail = f"given up: claimed {row['attempt']} times, and each time its worker or its process died without a word"
    if row["state"] in (State.WAITING, State.RETRYING) and row["worker"] is None:  # due in good order
        await change_state(connection, row["id"], row["epoch"], State.PENDING, actor=actor)
    told = await change_state(
        connection, row["id"], row["epoch"], State.CRASHED, detail=detail, actor=actor, error=detail
    )
    return {**told, "parameters": row["parameters"], "nonce": row["nonce"], "error": detail}


def _claimed(row: Row, recorded: Recorded) -> ClaimedRun:
    """The run as it is after the claim."""
    state = State.PENDING if row["worker"] is not None else State(row["state"])
    after = {"attempt": row["attempt"] + 1, "state": state, "recorded": recorded.results, "at": row["now"]}
    read: dict[str, Any] = {"limits": tuple(json.loads(row["limits"])), "report": bool(row["report"])}
    read |= {"calls": recorded.calls, "source": row["source"] or ""}
    return ClaimedRun(**{name: row[name] for name in _OF_CLAIM} | after | read)
