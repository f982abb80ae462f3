"""What runs wait for, as rows: asked by their code, answered by persons, events or time, replayed from the journal.

An answer is written into the journal under the call that asked, and in the same transaction the run becomes pending, if
it has left its process by then. If it has not, it finds the answer when it does (`suspend`). Both lock the run's row
first, so that one of them sees what the other has written.

Whoever changes one of these rows holds the run's row: `hold` by the worker's epoch, `lock` by anybody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.approval import Approval, refresh
from penstock.automations.firing import Firing
from penstock.events.bus import TopicPartition
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.flows.states import State
from penstock.services.database import clock, tables
from penstock.services.database.prepared import Row
from penstock.services.database.records import publish_later, service_lane, system_event, write_audit
from penstock.services.runs import FORMAT, RunNotFoundError, TransitionError, change_state, hold, wake_up

ANSWER, CODE = "answer", "code"  # run.waiting_for
_wait, _position, _run, _journal = tables.run_wait, tables.wait_position, tables.run, tables.journal
CAUSES = ("correlationid", "causationid", "traceparent", "hops")
_LOCKED = ("id", "namespace", "pool", "state", "epoch", "worker", "waiting_for", *CAUSES)
_NAMES = {"approval": "approve", "event": "wait_for_event"}


async def lock(connection: AsyncConnection, run_id: str) -> Row | None:
    """The run's row, ours until the end of this transaction; None where there is no such run."""
    query = sa.select(*(_run.c[name] for name in _LOCKED)).where(_run.c.id == run_id).with_for_update()
    found = (await connection.execute(query)).mappings().one_or_none()
    return None if found is None else dict(found)


# --- asking ---------------------------------------------------------------------------------------------------------


async def request_approval(
    connection: AsyncConnection, run_id: str, epoch: int, call: str, question: Mapping[str, Any]
) -> None:
    """Ask people for a run; a question that has been asked is left as it is.

    question: ask, approvers, needs, four_eyes, seconds, on_timeout, form, parent; without secrets.
    Raises StaleEpochError.
    """
    namespace = await hold(connection, run_id, epoch)
    asked = derived_id("approval", run_id, call, str(epoch))
    body = {"approval": asked, "parent": question.get("parent", "")}
    now = await _insert(connection, run_id, call, namespace, "approval", body)
    if now is None:
        return
    run = dict((await connection.execute(sa.select(_run).where(_run.c.id == run_id))).mappings().one())
    people = await _starters(connection, run)
    approval = Approval(
        asked,
        question["ask"],
        tuple(question["approvers"]),
        now,
        now + round(question["seconds"] * 1_000_000),
        question["needs"],
        question["four_eyes"],
        question["on_timeout"],
        _digest(question),
        people[0] if people else None,
        starters=people,
        form=question["form"],
    )
    row: dict[str, Any] = {"id": asked, "namespace": namespace, "run_id": run_id, "call": call, "status": "pending"}
    row |= {"ask": approval.ask, "body": approval.to_json().decode(), "expires_at": approval.deadline, "created": now}
    await connection.execute(sa.insert(tables.approval).values(row))
    data = {"run": run_id, "flow": run["flow"], "ask": approval.ask, "approvers": list(approval.approvers)}
    causes = {name: run[name] for name in CAUSES}
    told = system_event(
        "penstock.approval.requested",
        subject=asked,
        data=data,
        at=now,
        namespace=namespace,
        event_id=derived_id("penstock.approval.requested", asked),
        **causes,
    )
    publish_later(connection, service_lane(asked), [told])


async def request_event(
    connection: AsyncConnection,
    run_id: str,
    epoch: int,
    call: str,
    wanted: Mapping[str, Any],
    positions: Mapping[TopicPartition, int],
) -> None:
    """Have a run wait for an event; a wait that has begun is left as it is.

    wanted: pattern (EventBridge), since (only what arrived then or later; 0: whatever lies at its position or behind),
    seconds (until it is given up; None: never), parent.  positions: from where on it counts, in each partition.
    Raises StaleEpochError.
    """
    namespace = await hold(connection, run_id, epoch)
    body = {name: wanted[name] for name in ("pattern", "since", "parent")}
    seconds = wanted["seconds"]
    if await _insert(connection, run_id, call, namespace, "event", body, seconds) is None:
        return
    same: dict[str, Any] = {"run_id": run_id, "call": call, "namespace": namespace}
    rows = [same | {"topic": it.topic, "partition": it.partition, "position": at} for it, at in positions.items()]
    await connection.execute(sa.insert(_position), rows)


async def _insert(
    connection: AsyncConnection,
    run_id: str,
    call: str,
    namespace: str,
    kind: str,
    body: Mapping[str, Any],
    seconds: float | None = None,
) -> Instant | None:
    """The row of a new wait.  Returns when it was made; None where it is there already."""
    expires = None if seconds is None else clock.now() + round(seconds * 1_000_000)
    row = {"run_id": run_id, "call": call, "namespace": namespace, "kind": kind, "status": "open", "format": FORMAT}
    insert = sqlite.insert(_wait) if connection.dialect.name == "sqlite" else postgresql.insert(_wait)
    new = insert.values(row | {"body": json.dumps(body), "expires_at": expires, "created": clock.now()})
    made = await connection.execute(new.on_conflict_do_nothing().returning(_wait.c.created))
    found: Instant | None = made.scalar_one_or_none()
    return found


async def _starters(connection: AsyncConnection, run: Row) -> tuple[str, ...]:
    """The persons who started a run: by hand, or by the events that it was launched for."""
    event = tables.run_event
    first = sa.select(event.c.actor).where(event.c.run_id == run["id"], event.c.seq == 1)
    found = {str((await connection.execute(first)).scalar())}
    if run["firing_id"]:
        body = (
            await connection.execute(sa.select(tables.firing.c.body).where(tables.firing.c.id == run["firing_id"]))
        ).scalar()
        found |= {str(each.get("actor")) for each in Firing.from_json(body).events} if body else set()
    return tuple(sorted(actor for actor in found if actor.startswith("user/")))


def _digest(question: Mapping[str, Any]) -> str:
    """Of what people are shown."""
    shown = [question[name] for name in ("ask", "approvers", "form")]
    return blake2b(msgspec.json.encode(shown, order="deterministic"), digest_size=16).hexdigest()


# --- answering ------------------------------------------------------------------------------------------------------


async def answer(
    connection: AsyncConnection,
    run: Row,
    call: str,
    body: bytes,
    *,
    actor: str,
    detail: str,
    due_in: timedelta = timedelta(0),
) -> bool:
    """Record what a run has waited for, and let it go on.  Returns False where that had been answered before.

    run: as `lock` gave it.  body: JSON, as the flow's code reads it.  due_in: until the run may be claimed.
    """
    mine = (_wait.c.run_id == run["id"], _wait.c.call == call)
    done = {"status": "done", "answer": body.decode(), "answered": sa.func.coalesce(_wait.c.answered, clock.now())}
    update = sa.update(_wait).where(*mine, _wait.c.status != "done").values(done)
    found = (await connection.execute(update.returning(_wait.c.kind, _wait.c.created, _wait.c.body))).one_or_none()
    if found is None:
        return False
    row = {"run_id": run["id"], "call": call, "namespace": run["namespace"], "name": _NAMES[found.kind]}
    row |= {"state": State.COMPLETED.value, "result": body.decode(), "epoch": run["epoch"], "format": FORMAT}
    row |= {"started": found.created, "ended": clock.now(), "parent": json.loads(found.body).get("parent", "")}
    insert = sqlite.insert(_journal) if connection.dialect.name == "sqlite" else postgresql.insert(_journal)
    await connection.execute(insert.values(row).on_conflict_do_nothing())
    await connection.execute(sa.delete(_position).where(_position.c.run_id == run["id"], _position.c.call == call))
    has_left = run["state"] in (State.PAUSED, State.WAITING) and run["worker"] is None
    if has_left and run["waiting_for"] == ANSWER:
        await go_on(connection, run, actor=actor, detail=detail, due_in=due_in)
    return True


async def go_on(
    connection: AsyncConnection, run: Row, *, actor: str, detail: str, due_in: timedelta = timedelta(0)
) -> None:
    """A run that has left its process becomes pending, to be claimed and replayed.  run: as `lock` gave it."""
    epoch = None if run["worker"] is not None else run["epoch"]
    await change_state(
        connection, run["id"], epoch, State.PENDING, detail=detail, actor=actor, due_in=due_in, told_as="resumed"
    )
    publish_later(connection, service_lane(run["id"]), [wake_up(run["id"], run["pool"], run["namespace"])])


async def answered_since(connection: AsyncConnection, run_id: str, known: Mapping[str, object]) -> bool:
    """Whether something that the run waits for is answered, which a try that knew of these calls did not know."""
    query = sa.select(_wait.c.call).where(_wait.c.run_id == run_id, _wait.c.status == "done")
    return any(call not in known for call in (await connection.execute(query)).scalars())


# --- changed code ---------------------------------------------------------------------------------------------------


async def accept_code(
    connection: AsyncConnection, run_id: str, choice: Literal["continue", "restart"], source: str | None = None
) -> None:
    """Let a run go on with other code than it was recorded with; the caller holds its row.

    continue: what is recorded stays, by which code is forgotten.  restart: the journal, too, and what the run waits
    for.  source: digest of the flow's code from now on; None: of that which it is claimed with next.
    """
    await connection.execute(sa.update(_run).where(_run.c.id == run_id).values(source=source))
    if choice == "continue":
        await connection.execute(sa.update(_journal).where(_journal.c.run_id == run_id).values(source=None))
        return
    for table in (_journal, _wait, _position):
        await connection.execute(sa.delete(table).where(table.c.run_id == run_id))
    await void_approvals(connection, run_id)


async def choose_code(
    connection: AsyncConnection, namespace: str, run_id: str, choice: Literal["continue", "restart"], actor: str
) -> None:
    """A person has chosen what becomes of a paused or waiting run whose code changed: it goes on, or begins anew.

    Raises RunNotFoundError; TransitionError for a run in another state.
    """
    run = await lock(connection, run_id)
    if run is None or run["namespace"] != namespace:
        raise RunNotFoundError(f"there is no run {run_id}; `penstock runs list` shows those there are")
    if run["state"] not in (State.PAUSED, State.WAITING):
        raise TransitionError(run_id, run["state"], State.PENDING)
    await accept_code(connection, run_id, choice)
    detail = "goes on with the code as it is now" if choice == "continue" else "begins anew"
    await go_on(connection, run, actor=actor, detail=detail)
    await write_audit(
        connection,
        namespace=namespace,
        actor=actor,
        action="run.resumed",
        object_=f"run/{run_id}",
        detail={"code": choice},
    )


# --- what is left over ----------------------------------------------------------------------------------------------


async def void_approvals(connection: AsyncConnection, run_id: str) -> None:
    """Nobody waits for them any more; the caller holds the run's row."""
    row = tables.approval
    now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
    query = sa.select(row.c.id, row.c.body, row.c.version).where(row.c.run_id == run_id, row.c.status == "pending")
    for found in (await connection.execute(query)).all():
        approval = Approval.from_json(found.body)
        ended, _ = refresh(approval, f"void: {approval.shown}", now)
        values = {"status": "void", "body": ended.to_json().decode(), "version": found.version + 1, "decided": now}
        await connection.execute(sa.update(row).where(row.c.id == found.id).values(values))


async def end_waits(connection: AsyncConnection, run_id: str) -> None:
    """Where the run has ended with questions open, they are withdrawn."""
    run = await lock(connection, run_id)
    if run is None or not State(run["state"]).is_final:
        return
    for table in (_wait, _position):
        open_ones = table.c.run_id == run_id
        open_ones &= _wait.c.status != "done" if table is _wait else sa.true()
        await connection.execute(sa.delete(table).where(open_ones))
    await void_approvals(connection, run_id)


async def ended_with_waits(connection: AsyncConnection, limit: int) -> Sequence[str]:
    """Runs that have ended, and have open waits left."""
    left = sa.select(_wait.c.run_id).distinct().join(_run, _run.c.id == _wait.c.run_id)
    query = left.where(_wait.c.status.in_(("open", "matched")), _run.c.ended.is_not(None)).limit(limit)
    return list((await connection.execute(query)).scalars())


def spread(run_id: str, wait: timedelta, most: timedelta = timedelta(seconds=30)) -> timedelta:
    """What is added to a wait, so that runs with one deadline do not wake in one instant: up to a twentieth of it.

    The same for the same run. most: its limit.
    """
    share = int.from_bytes(blake2b(run_id.encode(), digest_size=4).digest(), "big") / 2**32
    return min(wait / 20, most) * share


class Turns:
    """Lets those that one answer wakes go on one after the other.  rate: how many in a second."""

    def __init__(self, rate: int = 200) -> None:
        self._apart, self._next = 1 / rate, 0.0

    def take(self, now: float) -> timedelta:
        """How long the next one waits for its turn.  now: seconds on any clock that goes on."""
        turn = max(now, self._next)
        self._next = turn + self._apart
        return timedelta(seconds=turn - now)
