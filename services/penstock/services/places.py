"""Places: how many runs of a deployment there are at once, across all workers and through every crash.

A deployment with `concurrency` has so many places. Each of its runs is made waiting for one (`run.gate` is 0, its state
`scheduled`), and begins when it was given one (`gate` is 1, `pending`). It keeps it until it has ended, also while it
is retried, paused or waits. Nothing is taken and given back, so nothing can be lost: the rows are counted. Whoever
gives places holds the row of the deployment, so that two never give the same one.

Runs of other deployments have no gate: claims do not ask for it, and cost what they did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.flows.states import State
from penstock.services import hints
from penstock.services.context import Context
from penstock.services.database import Database, clock
from penstock.services.database.prepared import Prepared
from penstock.services.database.records import publish_later, service_lane
from penstock.services.database.tables import COUNTS, deployment, run
from penstock.services.runs import TransitionError, change_state, wake_up
from penstock.services.worker.presence import tried

_AT_ONCE = 500  # runs that wait, looked at in one transaction
_log = structlog.get_logger()
_of_one = (run.c.namespace == sa.bindparam("of"), COUNTS)
_waiting = Prepared(sa.select(run.c.deployment, run.c.gate).where(*_of_one, run.c.gate == 0).distinct())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who may begin, and who is cancelled, each with why; ids of runs."""

    admit: tuple[str, ...] = ()
    cancel: tuple[tuple[str, str], ...] = ()


def decide(name: str, limit: int | None, when_full: str, holding: Sequence[str], waiting: Sequence[str]) -> Verdict:
    """Give the places of deployment `name`.

    limit: None for any number.  holding: runs that have a place, waiting: runs that want one; each the oldest first.
    """
    if limit is None:
        return Verdict(tuple(waiting))
    free = max(0, limit - len(holding))
    full = f"deployment {name} runs {limit} at a time"
    if when_full == "replace" and waiting:
        everyone = [*holding, *waiting]
        kept = set(everyone[-limit:])
        gone = tuple((each, f"{full}: replaced by a newer run") for each in everyone if each not in kept)
        return Verdict(tuple(each for each in waiting if each in kept), gone)
    if when_full == "cancel_new":
        return Verdict(tuple(waiting[:free]), tuple((each, f"{full}: not begun") for each in waiting[free:]))
    return Verdict(tuple(waiting[:free]))


class Places:
    """Gives places: at a hint, when a run here has ended while others wait, and each second."""

    def __init__(self, context: Context, look: float = 1.0) -> None:
        self._context, self._look = context, look
        self._some_wait = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._context.hints.wait(hints.PLACES, self._look)
            await tried("places.waiting", self._give)

    def one_ended(self) -> None:
        """A run has ended here: that may be its place."""
        if self._some_wait:
            self._context.hints.wake(hints.PLACES)

    async def _give(self) -> None:
        namespace = self._context.settings.namespace
        self._some_wait, given = await give_places(self._context.database, namespace)
        if given:
            await self._context.hints.give(hints.OUTBOX, hints.RUNS, hints.ASKED)


async def give_places(database: Database, namespace: str) -> tuple[bool, int]:
    """Give every free place there is.  Returns whether runs wait, and how many runs were begun or cancelled."""
    async with database.read() as connection:
        names = [row["deployment"] for row in await _waiting.fetch(connection, of=namespace)]
    given = 0
    for name in names:
        async with database.begin() as connection:
            given += await _give_of(connection, namespace, name, sqlite=database.is_sqlite)
    return bool(names), given


async def _give_of(connection: AsyncConnection, namespace: str, name: str, *, sqlite: bool) -> int:
    limit, when_full = await _limit(connection, namespace, name, sqlite=sqlite)
    mine = (run.c.namespace == namespace, run.c.deployment == name, COUNTS)
    order = (run.c.created, run.c.id)
    holders = sa.select(run.c.id).where(*mine, run.c.gate == 1).order_by(*order)
    waiters = sa.select(run.c.id, run.c.state, run.c.pool).where(*mine, run.c.gate == 0)
    by = (
        order if when_full == "replace" else (run.c.priority.desc(), *order)
    )  # there the newest stays, whatever its worth
    waiters = waiters.order_by(*by).limit(_AT_ONCE)
    holding = list((await connection.execute(holders)).scalars())
    waiting = {row.id: (row.state, row.pool) for row in await connection.execute(waiters)}
    verdict = decide(name, limit, when_full, holding, list(waiting))
    begun = [await _admit(connection, namespace, each, *waiting[each]) for each in verdict.admit]
    ended = [await _cancel(connection, each, why) for each, why in verdict.cancel]
    if sum(begun) or sum(ended):
        _log.info("places.given", deployment=name, begun=sum(begun), cancelled=sum(ended))
    return sum(begun) + sum(ended)


async def _limit(connection: AsyncConnection, namespace: str, name: str, *, sqlite: bool) -> tuple[int | None, str]:
    """What holds for it now; the row is ours until the transaction ends. One that was removed has no limit."""
    query = sa.select(deployment.c.concurrency, deployment.c.when_full)
    query = query.where(deployment.c.namespace == namespace, deployment.c.name == name)
    row = (await connection.execute(query if sqlite else query.with_for_update())).first()
    return (row.concurrency, row.when_full) if row is not None else (None, "queue")


async def _admit(connection: AsyncConnection, namespace: str, run_id: str, state: str, pool: str) -> bool:
    """Let it begin; one that is retried is due from now on, which is no change of its state.

    False, here and below: it has changed since it was looked at, and the next look finds it as it is.
    """
    if state == State.SCHEDULED:
        try:
            await change_state(connection, run_id, None, State.PENDING, gate=1)
        except TransitionError:
            return False
    else:
        waits = (run.c.id == run_id, run.c.gate == 0, run.c.ended.is_(None))
        found = await connection.execute(sa.update(run).where(*waits).values(gate=1, due_at=clock.now()))
        if not found.rowcount:
            return False
    publish_later(connection, service_lane(run_id), [wake_up(run_id, pool, namespace)])
    return True


async def _cancel(connection: AsyncConnection, run_id: str, why: str) -> bool:
    try:
        await change_state(connection, run_id, None, State.CANCELLED, detail=why, error=why)
    except TransitionError:
        return False
    return True
