"""One claimed run, from the claim to its end: limits, the child, the journal, and what follows."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.secrets import UnknownSecretError
from penstock.events.errors import PenstockError
from penstock.events.instants import Instant
from penstock.flows.journal import TaskCall
from penstock.flows.states import State
from penstock.services.backoff import Backoff
from penstock.services.database import Database, StaleEpochError, clock, unavailable
from penstock.services.database.prepared import Prepared
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.database.tables import run
from penstock.services.limits import Limits, LimitSpec, LimitsUnavailableError
from penstock.services.run_rules import CANCEL, SUSPEND
from penstock.services.run_steps import NotAsKnownError, Step
from penstock.services.runs import Entry, LogLine, TransitionError, change_state, clean, hold, write_logs
from penstock.services.waits import spread
from penstock.services.worker.asking import Desk, suspend
from penstock.services.worker.batches import Batches
from penstock.services.worker.children import Child
from penstock.services.worker.claims import ClaimedRun, give_back
from penstock.services.worker.end_hooks import Ended
from penstock.services.worker.frames import Asked, Execute, Finished, FlowInfo, Known, Log, Started, TaskFinished
from penstock.services.worker.logs import LogBatch
from penstock.services.worker.outcome import Outcome, judge
from penstock.services.worker.secrecy import Secrecy

_SOON = timedelta(minutes=2)  # a wait that is worth a timer; others are found when the worker looks, each second
TRY_AGAIN = timedelta(seconds=1)  # until a limit is asked for again that could not be checked
_DATABASE_AWAY = Backoff(attempts=2**31, cap=timedelta(seconds=2))  # until the lease is lost

_log = structlog.get_logger()
Result = TypeVar("Result")


class RunLostError(PenstockError):
    """The run is not ours any more; nothing more may be written for it."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What the executions of one worker share.

    changed: called after each commit that left something to publish; true: a fact for a firing, too.
    due_in: called when a run is due after a wait.  put_back: called with a child that is free again.
    journal, steps: what many runs write, in batches; steps: None where each writes alone (SQLite).
    desk: keeps what runs ask for.  died: called with a run that ended without its process.
    turn: runs ask for their limits one after the other, in the order in which they were claimed.
    """

    database: Database
    limits: Limits
    actor: str
    attempts: int
    changed: Callable[[bool], None]
    due_in: Callable[[timedelta], None]
    put_back: Callable[[Child], None]
    journal: Batches[Entry]
    steps: Batches[Step] | None
    desk: Desk
    died: Callable[[Ended], None]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Passing:
    """The limits that a run passes before it begins.  unknown: names that no rule file has (yet)."""

    limits: tuple[LimitSpec, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.limits or self.unknown)


class Execution:
    """Carries out one run in one child. `lose` and `hand_back` may be called at any time, from the loop."""

    def __init__(
        self,
        shop: Shop,
        claimed: ClaimedRun,
        flow: FlowInfo,
        child: Child,
        passing: Passing,
        version: str | None = None,  # the git commit of the flow's folder, as this worker has it
    ) -> None:
        self._shop, self.claimed, self._flow, self._child = shop, claimed, flow, child
        self._version = version
        self._has_child = True
        self._claimed = time.monotonic()
        self._passing = passing
        self._lost = asyncio.Event()
        self._handing_back = False
        self._wanted, self._wanted_by = "", ""  # what a person asks of the run, see `heed`
        self._suspended = False  # its process was ended for that
        self._until = math.inf
        self._seq: int | None = claimed.seq  # of its last change of state; None: not known for sure
        self._logs = LogBatch(self._write_logs)
        self._secrecy: Secrecy | None = None
        self._source = child.flows.get(claimed.flow, flow).source
        self._named: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Returns when the run has ended, waits, or is not ours any more."""
        try:
            await self._run()
        except (StaleEpochError, RunLostError, TransitionError) as error:
            _log.warning("run.lost", run=self.claimed.id, epoch=self.claimed.epoch, reason=str(error))
            if self._has_child and self._child.busy:
                await self._child.kill()

    def lose(self, reason: str) -> None:
        """Somebody else may have the run from now on: end its process, write nothing more."""
        _log.warning("run.losing", run=self.claimed.id, epoch=self.claimed.epoch, reason=reason)
        self._lost.set()
        self._kill()

    def keep(self, until: float) -> None:
        """The run is ours until then (monotonic clock): its process is told, for we may be stopped ourselves."""
        self._until = until
        if self._has_child:
            self._child.hold(self.claimed.id, until)

    async def abandon(self) -> None:
        """End its process, whatever it does."""
        if self._has_child:
            await self._child.kill()

    def let_go(self) -> None:
        """The process is done with the run, and can have another one; safe to call twice."""
        if self._has_child:
            self._has_child = False
            self._shop.put_back(self._child)

    def hand_back(self) -> None:
        """Stop here; another worker goes on from the journal."""
        self._handing_back = True
        self._kill()

    def heed(self, asked: str, by: str) -> None:
        """A person wants the run cancelled (`cancel`), or paused when its next call is recorded (`suspend`)."""
        if asked == self._wanted:
            return
        self._wanted, self._wanted_by = asked, by
        if asked == CANCEL and self._has_child:
            self._child.cancel(self.claimed.id)  # its code is told; it is killed only when it does not end

    async def _run(self) -> None:
        if self._passing and not await self._pass():
            return
        # The claim alone makes the run ours. That it runs is written while its process begins, and before all else.
        begun = asyncio.create_task(self._begin(self._now()))
        begun.add_done_callback(self._on_begun)
        try:
            self._secrecy = Secrecy(self.claimed.parameters, self.claimed.nonce, os.environ)
        except UnknownSecretError as error:
            await begun
            await self._end(Outcome(State.FAILED), b"null", str(error))
            return
        try:
            finished = await self._execute(self._secrecy)
        except BaseException:
            self._logs.abandon()
            begun.cancel()
            if self._named is not None:
                self._named.cancel()
            raise
        self.let_go()  # what is left to do is ours
        await begun
        if self._named is not None:
            await self._named
        await self._logs.close()
        await self._settle(finished, self._secrecy)

    def _on_begun(self, begun: asyncio.Task[None]) -> None:
        """Not ours, after all: end its process at once."""
        if not begun.cancelled() and begun.exception() is not None:
            self._kill()

    def _now(self) -> Instant:
        """By the database's clock, as the claim told it."""
        return self.claimed.at + round((time.monotonic() - self._claimed) * 1_000_000)

    async def _begin(self, at: Instant) -> None:
        """Its code begins at `at`, however long it takes to write that."""
        known = {"source": self._source or None, "version": self._version}
        actor, detail = self._shop.actor, _try_of(self.claimed)
        if not await self._step(State.RUNNING, at, actor=actor, detail=detail, **known):
            await self._write(lambda connection: begin(connection, self.claimed, actor, at, **known))

    async def _step(self, state: State, at: Instant, **more: Any) -> bool:
        """The change of state with those of other runs.  Returns False where it has to be made alone."""
        if self._seq is None or self._shop.steps is None:
            return False
        step = Step({**self.claimed.told, "seq": self._seq + 1}, state, at, **more)
        steps = self._shop.steps
        try:
            await self._insist(lambda: steps.put(step))
        except NotAsKnownError:
            self._seq = None
            return False
        self._seq += 1
        self._shop.changed(False)
        return True

    async def _pass(self) -> bool:
        """Pass the limits, or be parked."""
        if self._passing.unknown:  # waiting is safe, and shown; going on without the limit could not be taken back
            missing = ", ".join(self._passing.unknown)
            await self._park(
                TRY_AGAIN, missing, f"waits for limit {missing}, which no rule file defines under `limits:`"
            )
            return False
        try:
            async with self._shop.turn:
                taken = await self._shop.limits.take(self._passing.limits, holder=self.claimed.id)
        except LimitsUnavailableError as error:
            await self._park(TRY_AGAIN, ", ".join(error.names), str(error))
            return False
        if not taken.allowed:
            await self._park(taken.wait, taken.limit, f"waits for limit {taken.limit}")
            return False
        return True

    async def _park(self, wait: timedelta, limit: str, detail: str) -> None:
        """Wait without a process. One event for the parking, however often it is lengthened."""

        async def park(connection: AsyncConnection) -> None:
            actor = self._shop.actor
            if await give_back(connection, self.claimed, State.WAITING, wait=wait, detail=detail, actor=actor):
                await _tell_limit(connection, self.claimed, limit, wait)

        await self._write(park)
        self._shop.due_in(wait)

    async def _execute(self, secrecy: Secrecy) -> Finished:
        claimed = self.claimed
        order = Execute(
            run_id=claimed.id,
            epoch=claimed.epoch,
            flow=claimed.flow,
            parameters=secrecy.parameters,
            journal={key: secrecy.uncover(result) for key, result in claimed.recorded.items()},
            attempt=claimed.tries,
            namespace=claimed.namespace,
            correlationid=claimed.correlationid,
            causationid=claimed.causationid,
            traceparent=claimed.traceparent,
            hops=claimed.hops,
            until=self._until,
            retries_left=max(0, self._flow.retries - claimed.retries),
            source=claimed.source,
            calls={key: Known(call.name, call.source, call.parent) for key, call in claimed.calls.items()},
            may_suspend=True,
        )
        self._check_ours()
        if self._handing_back or not self._child.alive:
            error = "its process ended before the run began"
            return Finished(run_id=claimed.id, epoch=claimed.epoch, state="crashed", at=0, error=error)
        if self._wanted == CANCEL:
            told = "it was cancelled before its code began"
            return Finished(run_id=claimed.id, epoch=claimed.epoch, state="cancelled", at=0, error=told)
        return await self._child.execute(
            order, on_task=self._journal, on_log=self._take_line, on_started=self._take_name, on_ask=self._ask
        )

    def _take_line(self, line: Log) -> None:
        assert self._secrecy is not None  # noqa: S101 -- set before the child is given the run
        self._logs.add(LogLine(line.at, line.level, self._secrecy.mask(line.line)))

    def _take_name(self, started: Started) -> None:
        """Keep what the run is shown as, where its flow names its runs."""
        assert self._secrecy is not None  # noqa: S101 -- set before the child is given the run
        if started.name and not self.claimed.recorded:
            named = clean(self._secrecy.mask(started.name))
            self._named = asyncio.create_task(self._insist(lambda: self._name_run(named)))

    async def _name_run(self, name: str) -> None:
        """In a transaction of its own: among others it would lock rows that they wait for."""
        async with self._shop.database.begin() as connection:
            await name_run(connection, self.claimed, name)

    async def _ask(self, frame: Asked) -> str:
        assert self._secrecy is not None  # noqa: S101 -- set before the child is given the run
        return await self._shop.desk.take(self.claimed, frame, self._secrecy, self._source, self._write)

    async def _journal(self, task: TaskFinished) -> None:
        assert self._secrecy is not None  # noqa: S101 -- set before the child is given the run
        call = TaskCall(
            task.call,
            task.parent,
            task.name,
            State(task.state),
            self._secrecy.cover(task.result),
            task.started,
            task.ended,
            None if task.error is None else self._secrecy.mask(task.error),
            self._secrecy.mask(task.label),
            task.takes,
            task.source,
        )
        entry = Entry(self.claimed.id, self.claimed.epoch, call)
        await self._insist(lambda: self._shop.journal.put(entry))
        if self._wanted == SUSPEND and self._has_child:
            self._suspended = True
            await self._child.kill()  # before the code hears that it may go on

    async def _write_logs(self, lines: Sequence[LogLine]) -> None:
        await self._keep(lambda connection: write_logs(connection, self.claimed.id, self.claimed.epoch, lines))

    async def _settle(self, finished: Finished, secrecy: Secrecy) -> None:
        """Write how the try ended, and what follows."""
        self._check_ours()
        if self._handing_back and finished.state == State.CRASHED:
            await self._write(lambda connection: hand_back(connection, self.claimed, self._shop.actor))
            return
        if self._suspended and finished.state == State.CRASHED:
            await self._write(lambda connection: pause(connection, self.claimed, self._wanted_by))
            return
        if finished.state in (State.PAUSED, State.WAITING):
            await self._suspend(finished, secrecy)
            return
        if finished.traceback:
            lines = [LogLine(finished.at, "ERROR", secrecy.mask(line)) for line in finished.traceback.splitlines()]
            await self._write_logs(lines)
        outcome = judge(finished, self._flow, self.claimed, self._shop.attempts, random.random())
        error = None if finished.error is None else clean(secrecy.mask(finished.error))
        await self._end(outcome, secrecy.cover(finished.result), error)
        if not finished.told and outcome.wait is None:
            self._shop.died(_ended(self.claimed, finished.state, error or ""))

    async def _suspend(self, finished: Finished, secrecy: Secrecy) -> None:
        """Write that the run waits, without a process."""
        wait = None
        if finished.until is not None:
            left = timedelta(microseconds=max(0, finished.until - time.time_ns() // 1_000))
            wait = left + spread(self.claimed.id, left)
        told = {"detail": secrecy.mask(finished.error or ""), "actor": self._shop.actor}
        state, waits_for = State(finished.state), finished.waits_for
        await self._write(
            lambda connection: suspend(connection, self.claimed, state, wait, waits_for=waits_for, **told)
        )
        if wait is not None and wait < _SOON:
            self._shop.due_in(wait)

    async def _end(self, outcome: Outcome, result: bytes, error: str | None) -> None:
        cancelled = self._wanted == CANCEL and outcome.state is State.CANCELLED
        actor = self._wanted_by if cancelled else self._shop.actor
        if not await self._end_at_once(outcome, result, error, actor):
            await self._write(lambda connection: settle(connection, self.claimed, outcome, result, error, actor))
        if outcome.wait is not None:
            self._shop.due_in(outcome.wait)

    async def _end_at_once(self, outcome: Outcome, result: bytes, error: str | None, actor: str) -> bool:
        if outcome.wait is not None or self.claimed.report:
            return False
        body = result.decode() if outcome.state is State.COMPLETED else None
        more = {"actor": actor, "detail": clean(error or ""), "result": body, "error": error}
        return await self._step(outcome.state, self._now(), **more)

    async def _write(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Write something that is to be told, too."""
        result = await self._keep(operation)
        self._shop.changed(self.claimed.report)
        return result

    async def _keep(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        return await self._insist(lambda: self._shop.database.write(operation))

    async def _insist(self, write: Callable[[], Awaitable[Result]]) -> Result:
        """Write, and write again while the database is away and the run is still ours."""
        failures = 0
        while True:
            self._check_ours()
            try:
                return await write()
            except Exception as error:
                if not unavailable(error):
                    raise
                failures += 1
                _log.warning("run.database_away", run=self.claimed.id, failures=failures, error=str(error))
            await asyncio.sleep(_DATABASE_AWAY.pause(failures).total_seconds())

    def _check_ours(self) -> None:
        if self._lost.is_set():
            raise RunLostError(f"run {self.claimed.id} is not ours any more; another worker goes on from its journal")

    def _kill(self) -> None:
        if self._has_child and self._child.busy:
            self._killing = asyncio.create_task(self._child.kill())


def _ended(claimed: ClaimedRun, state: str, error: str) -> Ended:
    same = (claimed.id, claimed.epoch, claimed.flow, claimed.namespace, claimed.parameters, claimed.nonce)
    return Ended(*same, claimed.tries, state, error)


def _try_of(claimed: ClaimedRun) -> str:
    return f"try {claimed.tries}" if claimed.tries > 1 else ""


async def begin(
    connection: AsyncConnection,
    claimed: ClaimedRun,
    actor: str,
    at: Instant,
    *,
    source: str | None = None,
    version: str | None = None,
) -> None:
    """The run's code began at `at`, on the database's clock.

    source: digest of the code, kept the first time.  version: the git commit of the flow's folder, as it is here.
    """
    detail = _try_of(claimed)
    known: dict[str, Any] = {"source": source} | ({} if version is None else {"version": version})
    run_id, epoch = claimed.id, claimed.epoch
    try:
        await change_state(connection, run_id, epoch, State.RUNNING, detail=detail, actor=actor, began=at, **known)
    except TransitionError as error:
        if error.old != State.RUNNING:
            raise  # else it was us, in a try whose answer was lost


async def name_run(connection: AsyncConnection, claimed: ClaimedRun, name: str) -> None:
    """What the run is shown as."""
    await hold(connection, claimed.id, claimed.epoch)
    await connection.execute(sa.update(run).where(run.c.id == claimed.id).values(name=name))


async def hand_back(connection: AsyncConnection, claimed: ClaimedRun, actor: str) -> None:
    """The run waits for another worker. Its epoch is raised here already: nothing of ours is written any more."""
    await give_back(connection, claimed, State.PENDING, detail="handed back: its worker stops", actor=actor)
    await _end_epoch.fetch(connection, run_=claimed.id, mine=claimed.epoch)


_end_epoch = Prepared(
    sa.update(run)
    .where(run.c.id == sa.bindparam("run_"), run.c.epoch == sa.bindparam("mine"))
    .values(epoch=run.c.epoch + 1)
)


async def pause(connection: AsyncConnection, claimed: ClaimedRun, actor: str) -> None:
    """The run was stopped after a call, as a person had asked; it goes on from there when it is resumed."""
    detail = "suspended after a call that is recorded"
    await give_back(connection, claimed, State.PAUSED, detail=detail, actor=actor)  # or what was asked for meanwhile


async def settle(
    connection: AsyncConnection, claimed: ClaimedRun, outcome: Outcome, result: bytes, error: str | None, actor: str
) -> None:
    """Write how a try ended: for good, or until it is tried again."""
    run_id, epoch, detail = claimed.id, claimed.epoch, error or ""
    if outcome.wait is None:
        body = result.decode() if outcome.state is State.COMPLETED else None
        try:
            await change_state(
                connection, run_id, epoch, outcome.state, detail=detail, actor=actor, result=body, error=error
            )
        except TransitionError as refused:
            if refused.old != outcome.state:
                raise  # else it was us, as above
    elif outcome.crashed_and_goes_on:
        await change_state(
            connection, run_id, epoch, State.CRASHED, detail=detail, actor=actor, error=error, goes_on=True
        )
        await change_state(connection, run_id, epoch, State.RETRYING, actor=actor, due_in=outcome.wait)
    else:
        more = {"retries": claimed.retries + 1, "error": error}
        await give_back(connection, claimed, State.RETRYING, wait=outcome.wait, detail=detail, actor=actor, **more)


async def _tell_limit(connection: AsyncConnection, claimed: ClaimedRun, limit: str, wait: timedelta) -> None:
    event = system_event(
        "penstock.limit.reached",
        subject=f"limit/{limit}",
        data={"limit": limit, "run": claimed.id, "flow": claimed.flow, "wait_seconds": wait.total_seconds()},
        at=(await connection.execute(sa.select(clock.now()))).scalar_one(),
        namespace=claimed.namespace,
        correlationid=claimed.correlationid,
        causationid=claimed.causationid,
        traceparent=claimed.traceparent,
        hops=claimed.hops,
    )
    publish_later(connection, service_lane(claimed.id), [event])
