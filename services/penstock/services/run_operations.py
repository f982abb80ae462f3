"""What people do with runs: cancel, retry, suspend, resume; one run at a time, or all that a filter names.

Each is one transaction: the change of state with its row and its event, and a line of the audit log. A run whose code
runs is asked (`run.asked`): its worker hears of it by a hint, tells the code, and writes the state itself, so that what
the code undoes or logs on its way out is kept. When that worker dies, whoever takes the run over does what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.flows.states import State
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database import Database, clock
from penstock.services.database.records import publish_later, service_lane, write_audit
from penstock.services.database.tables import run
from penstock.services.run_filter import RunFilter
from penstock.services.run_replay import forget_undone
from penstock.services.run_rules import BECOMES, FROM, Deed, Operation, OperationRefusedError, decide, done
from penstock.services.runs import RunNotFoundError, change_state, wake_up
from penstock.services.waits import accept_code, end_waits

MOST = 1_000  # runs of one operation by filter
_AT_ONCE = 50  # of them are worked on together


@dataclass(frozen=True, slots=True)
class Order:
    """What to do, and who says so.

    at_once: for cancel and suspend, without a word to the code.  from_start: for retry, with an empty journal.
    reason: for the audit log and the run's history.
    """

    operation: Operation
    actor: str
    at_once: bool = False
    from_start: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an order.  state: of the run now.  asked: the state will follow, its worker has been asked."""

    id: str
    state: State
    asked: bool = False


@dataclass(slots=True)
class DoneToMany:
    """What came of an order for many.  refused: id → why.  more: there are more that match."""

    done: list[Done] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker has to know of a run in hand.  epoch: another than the claim's, and the run is not its any more."""

    epoch: int
    asked: str | None
    by: str


async def operate(context: Context, namespace: str, run_id: str, order: Order) -> Done:
    """Carry out an order on one run.  Raises RunNotFoundError, OperationRefusedError."""
    found = await context.database.write(lambda connection: _operate(connection, namespace, run_id, order))
    await _wake(context, order)
    return found


async def operate_on_many(context: Context, namespace: str, which: RunFilter, order: Order) -> DoneToMany:
    """Carry out an order on the runs that match and whose state allows it, the oldest first, MOST at a time.

    Each run is a transaction of its own: one that changes meanwhile is refused by name, and holds up no other.
    """
    ids, more = await matching(context.database, namespace, which, order.operation)
    found = DoneToMany(more=more)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        ends = await asyncio.gather(*(_one_of_many(context, namespace, each, order) for each in some))
        for run_id, end in zip(some, ends, strict=True):
            if isinstance(end, Done):
                found.done.append(end)
            else:
                found.refused[run_id] = end
    if ids:
        await _wake(context, order)
    return found


async def matching(
    database: Database, namespace: str, which: RunFilter, operation: Operation
) -> tuple[list[str], bool]:
    """The runs that an operation by filter is about, and whether there are more of them."""
    possible = run.c.state.in_([state.value for state in FROM[operation]])
    async with database.read() as connection:
        query = sa.select(run.c.id).where(*await which.where(connection, namespace), possible)
        ids = list((await connection.execute(query.order_by(run.c.created, run.c.id).limit(MOST + 1))).scalars())
    return ids[:MOST], len(ids) > MOST


async def wanted_of(database: Database, run_ids: Iterable[str]) -> dict[str, Wanted]:
    """What is wanted of these runs; those that are gone are left out."""
    query = sa.select(run.c.id, run.c.epoch, run.c.asked, run.c.asked_by).where(run.c.id.in_(list(run_ids)))
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    return {row.id: Wanted(row.epoch, row.asked, row.asked_by or "system") for row in rows}


async def _one_of_many(context: Context, namespace: str, run_id: str, order: Order) -> Done | str:
    try:
        return await context.database.write(lambda connection: _operate(connection, namespace, run_id, order))
    except (OperationRefusedError, RunNotFoundError) as error:
        return str(error)


async def _operate(connection: AsyncConnection, namespace: str, run_id: str, order: Order) -> Done:
    row = await _locked(connection, namespace, run_id)
    state = State(row.state)
    deed = decide(order.operation, run_id, state, held=row.held, asked=row.asked, at_once=order.at_once)
    if deed is Deed.ASK:
        asked = {"asked": order.operation, "asked_by": order.actor}
        await connection.execute(sa.update(run).where(run.c.id == run_id).values(**asked))
        found = Done(run_id, state, asked=True)
    else:
        await _change(connection, row, order)
        found = Done(run_id, BECOMES[order.operation])
    detail: dict[str, Any] = {"was": state.value}
    detail |= {"asked": True} if found.asked else {}
    detail |= {"at_once": True} if order.at_once else {}
    detail |= {"from_start": True} if order.from_start else {}
    detail |= {"reason": order.reason} if order.reason else {}
    what = f"run.{done(order.operation)}"
    object_ = f"run/{run_id}"
    await write_audit(connection, namespace=namespace, actor=order.actor, action=what, object_=object_, detail=detail)
    return found


async def _locked(connection: AsyncConnection, namespace: str, run_id: str) -> Any:
    """The row as it is until the end of this transaction."""
    names = ("id", "state", "pool", "asked", "attempt", "retries", "earlier")
    held = (run.c.worker.is_not(None) & (run.c.lease_until > clock.now())).label("held")
    query = sa.select(*(run.c[name] for name in names), held)
    found = await connection.execute(query.where(run.c.namespace == namespace, run.c.id == run_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise RunNotFoundError(f"there is no run {run_id!r} here; `penstock runs list` shows those there are")
    return row


async def _change(connection: AsyncConnection, row: Any, order: Order) -> None:
    columns: dict[str, Any] = {}
    told_as = ""
    goes_on = order.operation in ("retry", "resume")
    if order.operation == "retry":
        # Its tries are counted on, and its budgets of retries and of crashes are whole again.
        tries = row.earlier + row.attempt + row.retries
        columns = {"earlier": tries, "attempt": 0, "retries": 0, "result": None, "error": None}
        await end_waits(connection, row.id)  # what is asked again is asked anew
        await accept_code(connection, row.id, "restart" if order.from_start else "continue")
        if not order.from_start:
            await forget_undone(connection, row.id)
    elif order.operation == "resume":
        told_as = "resumed"
    new, wait = BECOMES[order.operation], timedelta(0) if goes_on else None
    changed = await change_state(
        connection,
        row.id,
        None,
        new,
        detail=_detail(order),
        actor=order.actor,
        due_in=wait,
        told_as=told_as,
        **columns,
    )
    if goes_on:
        wake = wake_up(row.id, row.pool, changed["namespace"])
        publish_later(connection, service_lane(row.id), [wake])


def _detail(order: Order) -> str:
    told = "from the start, its journal is dropped" if order.from_start else ""
    return "; ".join(part for part in (told, order.reason) if part)


async def _wake(context: Context, order: Order) -> None:
    """Whoever has to act on it: the worker that holds the run, one that is free, a firing that waits."""
    more = (hint.RUNS,) if order.operation in ("retry", "resume") else (hint.ASKED, hint.FACTS, hint.PLACES)
    await context.hints.give(hint.OUTBOX, *more)
