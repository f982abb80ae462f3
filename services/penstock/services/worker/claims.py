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
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import microseconds
from penstock.flows.states import State
from penstock.services.database import clock
from penstock.services.database.prepared import Prepared, Row, one_of
from penstock.services.database.tables import run
from penstock.services.runs import FORMAT, change_state, recorded_calls, stamps, tell_changes, told_columns

_BATCH = 100  # claims of one transaction
_CLAIMABLE = (State.PENDING.value, State.WAITING.value, State.RETRYING.value, State.RUNNING.value)
_COLUMNS = (
    *("id", "namespace", "flow", "state", "parameters", "nonce", "attempt", "retries", "epoch", "worker", "limits"),
    *("firing_id", "lane", "step", "report", "correlationid", "causationid", "traceparent", "hops"),
)


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours while its lease lasts.

    epoch: carried by every write.  state: pending, waiting or retrying.  tries: 1 for the first time that its code
    runs.  limits: named by the run itself; those of its flow come on top.  recorded: results of finished task calls.
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

    @property
    def tries(self) -> int:
        """How often its code has been begun, this time included."""
        return self.attempt + self.retries


@dataclass(frozen=True, slots=True)
class Given:
    """What one look for due runs gave.  crashed: rows of runs that were given up; their ends are to be told."""

    claimed: list[ClaimedRun]
    crashed: list[Row]
    more: bool  # there may be more that are due


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


async def claim(
    connection: AsyncConnection, claimer: Claimer, limit: int, begins: Callable[[ClaimedRun], bool] = lambda _: False
) -> Given:
    """Claim up to `limit` due runs: the highest priority first, then the longest due.

    begins: whether a run has nothing to wait for any more; it becomes running with its claim.
    A run whose holder let its lease end goes back to pending first, as a change of its own; after
    `claimer.attempts` such claims it becomes crashed instead.
    """
    limit = min(limit, _BATCH)
    rows = await _due.fetch(
        connection, pool=claimer.pool, namespace=claimer.namespace, flows=list(claimer.flows), most=limit
    )
    crashed, kept = [], []
    for row in rows:
        if row["worker"] is not None and row["state"] != State.PENDING:
            detail = f"the lease of worker {row['worker']} ended"
            await change_state(connection, row["id"], row["epoch"], State.PENDING, detail=detail, actor=claimer.actor)
        if row["attempt"] < claimer.attempts:
            kept.append(row)
        else:
            crashed.append(await _give_up(connection, row, claimer.actor))
    resumed = [row["id"] for row in kept if row["epoch"] > 0]
    recorded = await recorded_calls(connection, resumed) if resumed else {}
    claimed = [_claimed(row, recorded.get(row["id"], {})) for row in kept]
    await _take_all(connection, claimer, [each for each in claimed if not begins(each)])
    await _begin_all(connection, claimer, [each for each in claimed if begins(each)])
    return Given(claimed, crashed, len(rows) == limit)


async def _take_all(connection: AsyncConnection, claimer: Claimer, claimed: Sequence[ClaimedRun]) -> None:
    await _take.many(connection, [_holding(claimer, each) for each in claimed])


async def _begin_all(connection: AsyncConnection, claimer: Claimer, claimed: Sequence[ClaimedRun]) -> None:
    """Their code is about to begin."""
    tries = {each.id: each.tries for each in claimed}
    rows = await _take_and_begin.many(connection, [_holding(claimer, each) for each in claimed])
    details = [f"try {tries[row['id']]}" if tries[row["id"]] > 1 else "" for row in rows]
    tell_changes(connection, rows, details, claimer.actor)


def _holding(claimer: Claimer, claimed: ClaimedRun) -> dict[str, Any]:
    return {"run_": claimed.id, "holder": claimer.worker, "lease": microseconds(claimer.lease)}


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


def _claimable() -> Prepared:
    """The rows to claim, locked; rows that somebody else is claiming now are passed over."""
    # As a subquery the clock is read once, and the index on due_at can be used.
    now = sa.select(clock.now()).scalar_subquery()
    due = (run.c.due_at <= now, run.c.lease_until <= now, sa.or_(*(run.c.state == state for state in _CLAIMABLE)))
    ours = (run.c.pool == sa.bindparam("pool"), run.c.namespace == sa.bindparam("namespace"))
    able = (one_of(run.c.flow, "flows"), run.c.format <= FORMAT)
    query = sa.select(*(run.c[name] for name in _COLUMNS)).where(*due, *ours, *able)
    query = query.order_by(run.c.priority.desc(), run.c.due_at, run.c.id)
    return Prepared(query.limit(sa.bindparam("most", type_=sa.BigInteger())).with_for_update(skip_locked=True))


_due = _claimable()
_taking = (
    sa.update(run)
    .where(run.c.id == sa.bindparam("run_"))
    .values(
        epoch=run.c.epoch + 1,
        attempt=run.c.attempt + 1,
        worker=sa.bindparam("holder"),
        lease_until=clock.now() + sa.bindparam("lease", type_=sa.BigInteger()),
    )
)
_take = Prepared(_taking)
_take_and_begin = Prepared(
    _taking.values({"state": State.RUNNING.value, "seq": run.c.seq + 1} | stamps(State.RUNNING)).returning(
        *told_columns()
    )
)


async def _give_up(connection: AsyncConnection, row: Row, actor: str) -> Row:
    detail = f"given up: claimed {row['attempt']} times, and each time its worker or its process died without a word"
    if row["state"] in (State.WAITING, State.RETRYING) and row["worker"] is None:  # due in good order
        await change_state(connection, row["id"], row["epoch"], State.PENDING, actor=actor)
    return await change_state(
        connection, row["id"], row["epoch"], State.CRASHED, detail=detail, actor=actor, error=detail
    )


def _claimed(row: Row, recorded: Mapping[str, bytes]) -> ClaimedRun:
    """The row as it is after the claim."""
    state = State.PENDING if row["worker"] is not None else State(row["state"])
    after = {"epoch": row["epoch"] + 1, "attempt": row["attempt"] + 1, "state": state, "recorded": recorded}
    read = {"limits": tuple(json.loads(row["limits"])), "report": bool(row["report"])}
    return ClaimedRun(**{name: row[name] for name in _COLUMNS if name != "worker"} | after | read)
