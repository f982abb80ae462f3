"""The worker service: wakes up, claims as many runs as it has free children, and sees each to its end.

Formats: a wake-up is read for no more than that it came, so a record of a newer format (`v`, unknown fields) wakes as
well as one of today's; rows say themselves which worker can run them (`runs`, Formats).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.pools import Kind, pool_named
from penstock.events.bus import runs_topic
from penstock.flows.states import State
from penstock.services import hints
from penstock.services.context import Context
from penstock.services.limits import Limits, LimitSpec
from penstock.services.messaging import Messaging
from penstock.services.places import Places
from penstock.services.run_operations import wanted_of
from penstock.services.worker.asking import Desk
from penstock.services.worker.claims import ClaimedRun, Claimer, claim, give_back, renew
from penstock.services.worker.cluster import ApiCluster
from penstock.services.worker.containers import Contained
from penstock.services.worker.crew import Crew, Wear
from penstock.services.worker.end_hooks import Ended, EndHooks
from penstock.services.worker.execution import Execution, Passing, Shop
from penstock.services.worker.frames import FlowInfo, Log, Problem
from penstock.services.worker.journaling import journal_of, steps_of
from penstock.services.worker.leases import Leases
from penstock.services.worker.places import Forked, Making, Place, Spawned
from penstock.services.worker.pods import Podded
from penstock.services.worker.presence import Presence, tried
from penstock.services.worker.sources import follow, stamps

# Not for the processes of users' code.
_WITHHELD = ("PENSTOCK_SECRET_", "PENSTOCK_DATABASE_URL", "PENSTOCK_API_KEY")
_RECENT = 10_000  # runs
_IN_HAND = 16  # for each child: runs whose code has ended, and that are being written
_ASK_AGAIN = 1.0  # seconds
_HEED = 2.0  # seconds between looks at what people want of the runs in hand, without a hint
_LINGER = 0.01  # seconds
LAST_CLAIM = 5.0  # seconds for a claim in hand to be finished when the worker stops

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds.  sweep: between looks for runs whose wake-up was lost.

    drain: for runs to end when the worker stops; None: as its pool says.  patience: how long a run waits for a worker
    that can import its module, before one that cannot has it fail.
    """

    sweep: float = 1.0
    drain: float | None = None
    patience: float = 30.0


class WorkerService:
    """One worker of the pool and namespace of its settings.  Raises UnknownPoolError."""

    def __init__(self, context: Context, pace: Pace | None = None) -> None:
        settings = context.settings
        self._context, self._pace = context, pace or Pace()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._starved = True  # there was no child for a run that is due, or may have been
        self._recent: dict[str, None] = {}  # claimed here, and their wake-ups not seen yet
        self._unpublished, self._untold = asyncio.Event(), False
        self._running: dict[tuple[str, int], tuple[Execution, asyncio.Task[None]]] = {}
        self._returning: set[asyncio.Task[bool]] = set()
        self._presence = Presence(context)
        self._pool = pool_named(settings.pools, settings.pool)
        self._crew = Crew(
            self._place(),
            settings.concurrency,
            changed=self._on_room,
            loaded=self._presence.take,
            wear=self._wear(),
        )
        self._end_hooks = EndHooks(context.database, self._crew.take, self._crew.put_back)
        self._leases = Leases(settings.run_lease, self._renew)
        self._places = Places(context)
        self._shop = Shop(
            context.database,
            Limits(context.redis, settings.namespace),
            f"worker/{context.instance}",
            settings.run_attempts,
            changed=self._changed,
            due_in=self._look_in,
            put_back=self._crew.put_back,
            journal=journal_of(context.database),
            steps=None if context.database.is_sqlite else steps_of(context.database),
            died=self._end_hooks.tell,
            desk=Desk(context.bus, context.hints, settings.event_partitions),
        )

    @property
    def flows(self) -> list[str]:
        """The names of the flows that it can run."""
        return sorted(self._presence.flows)

    @property
    def problems(self) -> list[Problem]:
        """Why modules, or flows of them, cannot be used."""
        return self._presence.problems

    async def run(self, started: Callable[[], None]) -> None:
        """Work until cancelled; then take nothing new, let runs end for some seconds, and hand back the others."""
        settings = self._context.settings
        messaging = Messaging(
            settings.bus_url, self._context.bus, instance=self._context.instance, namespace=settings.namespace
        )
        messaging.on(runs_topic(settings.pool), f"penstock.workers.{settings.pool}", self._on_wake_up)
        known = stamps(settings.flows)
        keeping = _start(
            self._leases.run(), self._heed(), self._publish(), self._crew.run() if settings.flows else self._idle()
        )
        taking = _start(self._presence.run())
        claiming: list[asyncio.Task[None]] = []
        self._stopping.clear()
        try:
            await _until([*keeping, *taking], self._prepare(messaging))
            taking += _start(self._sweep(), follow(settings.flows, known, self._renew_children))
            taking += _start(self._places.run())
            claiming += _start(self._claim_until_stopped(), self._fail_unloadable())
            started()
            await _until([*keeping, *taking, *claiming], asyncio.Event().wait())
        finally:
            await _cancel(taking)
            await self._stop_claiming(claiming)
            await messaging.stop()
            await self._drain()
            await self._end_hooks.stop()
            await _cancel(keeping)
            await self._crew.stop()
            await self._presence.leave()

    async def _prepare(self, messaging: Messaging) -> None:
        """What has to be there before the first claim: flows, the rules with their limits, the way to be woken."""
        await self._presence.registered.wait()
        while True:
            if await tried("worker.waiting_for_rules", self._context.rulebook.refresh):
                break
            await asyncio.sleep(self._pace.sweep)
        await messaging.start()

    async def _renew_children(self, files: list[str]) -> None:
        """Flow files were saved: runs that begin from now on have the new code."""
        _log.info("worker.flows_changed", files=files, in_force=await self._crew.renew())
        self._presence.register_again()  # the version may be another one, though the flows look the same

    async def _idle(self) -> None:
        """Without flows (PENSTOCK_FLOWS is empty) there is nothing to run, which is no error."""
        self._presence.take({}, [])
        await asyncio.Event().wait()

    # Waking up and claiming.

    async def _on_wake_up(self, value: bytes) -> None:
        """A hint is faster; the record is for the hint that was lost, and for the workers that had no place then."""
        if self._recent.pop(_run_of(value), None) is None:
            self._wake.set()

    async def _sweep(self) -> None:
        while True:
            await self._context.hints.wait(hints.RUNS, self._pace.sweep)
            self._wake.set()

    async def _claim_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            if not await tried("worker.cannot_claim", self._claim_all):
                await asyncio.sleep(self._pace.sweep)

    async def _claim_all(self) -> None:
        self._starved = False
        while self._may_claim() and await self._claim_some():
            pass
        self._starved = not self._may_claim()

    def _on_room(self) -> None:
        """Look for a run only where one may have been left for want of a child, or of room."""
        if self._starved:
            self._wake.set()

    def _may_claim(self) -> bool:
        room = len(self._running) < _IN_HAND * self._crew.size
        return not self._stopping.is_set() and bool(self._presence.flows) and self._crew.free > 0 and room

    async def _stop_claiming(self, claiming: list[asyncio.Task[None]]) -> None:
        """A claim in hand is finished: cut off, it might be committed without anybody who knows of it."""
        self._stopping.set()
        self._wake.set()
        if claiming:
            await asyncio.wait(claiming, timeout=LAST_CLAIM)
            await _cancel(claiming)

    async def _claim_some(self) -> bool:
        """Claim for the free children.  Returns whether there may be more that are due."""
        return await self._claim_as(self._claimer(tuple(sorted(self._presence.flows))))

    async def _claim_as(self, claimer: Claimer) -> bool:
        since = asyncio.get_running_loop().time()
        given = await claim(self._context.database, claimer, self._crew.free)
        for claimed in given.claimed:
            self._execute(claimed, self._passing(claimed), since)
            self._recent[claimed.id] = None
        while len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        if given.crashed:
            self._changed(any(row["report"] for row in given.crashed))
        for row in given.crashed:
            names = ("epoch", "flow", "namespace", "parameters", "nonce", "attempt", "state", "error")
            self._end_hooks.tell(Ended(row["id"], **{name: row[name] for name in names}))
        if given.stopped:
            self._changed(any(row["report"] for row in given.stopped))
        return given.more

    async def _fail_unloadable(self) -> None:
        """Runs of modules that cannot be imported here, and that nobody else has taken for long, fail with the reason.

        They are carried out like others: the child says why it has no such flow.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.patience / 3):
                    await self._stopping.wait()
                    return
            await tried("worker.cannot_claim", self._claim_unloadable)

    async def _claim_unloadable(self) -> None:
        flows = await self._presence.unloadable()
        if flows and not self._stopping.is_set() and self._crew.free > 0:
            await self._claim_as(replace(self._claimer(flows), patience=timedelta(seconds=self._pace.patience)))

    def _claimer(self, flows: tuple[str, ...]) -> Claimer:
        settings, order = self._context.settings, self._pool.order
        lease, attempts, queues = settings.run_lease, settings.run_attempts, settings.queues
        name, namespace, pool = self._context.instance, settings.namespace, settings.pool
        return Claimer(name, namespace, pool, flows, lease, attempts, queues, order)

    def _flow(self, name: str) -> FlowInfo:
        """What is known of it; next to nothing where its module cannot be imported."""
        found = self._presence.flows.get(name)
        return found or FlowInfo(name=name, module="", qualname="", place="", parameters={})

    def _passing(self, claimed: ClaimedRun) -> Passing:
        """The limits that the run and its flow name."""
        known = self._context.rulebook.current.rules.limits
        names = dict.fromkeys((*claimed.limits, *self._flow(claimed.flow).limits))
        found = {name: known.get((claimed.namespace, name)) for name in names}
        limits = tuple(LimitSpec.of(limit) for limit in found.values() if limit is not None)
        return Passing(limits, tuple(name for name, limit in found.items() if limit is None))

    def _look_in(self, wait: timedelta) -> None:
        """Look again when a run of ours is due, not only at the next sweep."""
        asyncio.get_running_loop().call_later(wait.total_seconds(), self._wake.set)

    # Carrying out.

    def _execute(self, claimed: ClaimedRun, passing: Passing, since: float) -> None:
        child = self._crew.take()
        if child is None:  # it died while we claimed
            returning = asyncio.create_task(self._return(claimed))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            return
        flow = self._flow(claimed.flow)
        execution = Execution(self._shop, claimed, flow, child, passing, self._presence.versions.get(flow.place))
        self._leases.hold(claimed.id, claimed.epoch, since, execution.lose, execution.keep)
        task = asyncio.create_task(self._see_through(execution, claimed))
        self._running[claimed.id, claimed.epoch] = execution, task

    async def _see_through(self, execution: Execution, claimed: ClaimedRun) -> None:
        try:
            await execution.run()
        except Exception:  # a fault of ours in one run must not end the others; its lease will, and it is taken over
            _log.exception("run.not_seen_through", run=claimed.id)
            await execution.abandon()
        finally:
            self._running.pop((claimed.id, claimed.epoch), None)
            self._leases.release(claimed.id, claimed.epoch)
            execution.let_go()
            self._on_room()
            self._places.one_ended()

    async def _return(self, claimed: ClaimedRun) -> bool:
        async def write(connection: AsyncConnection) -> None:
            await give_back(connection, claimed, State.PENDING, actor=self._shop.actor)

        return await tried("worker.claim_not_returned", lambda: self._context.database.write(write))

    async def _renew(self, held: Mapping[str, int]) -> set[str]:
        name, lease = self._context.instance, self._context.settings.run_lease
        return await self._context.database.write(lambda connection: renew(connection, name, lease, held))

    async def _heed(self) -> None:
        """Hear what people want of the runs in hand; a look now and then is for the hint that was lost."""
        while True:
            await self._context.hints.wait(hints.ASKED, _HEED)
            if self._running:
                await tried("worker.cannot_heed", self._heed_all)

    async def _heed_all(self) -> None:
        wanted = await wanted_of(self._context.database, [run_id for run_id, _ in self._running])
        for (run_id, epoch), (execution, _) in [*self._running.items()]:
            now = wanted.get(run_id)
            if now is not None and now.epoch != epoch:
                execution.lose("somebody else has claimed or moved the run")
            elif now is not None and now.asked is not None:
                execution.heed(now.asked, now.by)

    def _changed(self, facts: bool) -> None:
        """Something was committed that is to be published; and facts for firings."""
        self._untold = self._untold or facts
        self._unpublished.set()

    async def _publish(self) -> None:
        """Tell the engines that there is something to relay; what comes meanwhile is told with the next."""
        while True:
            await self._unpublished.wait()
            if not self._untold:  # the engines take their time, too; a fact is waited for
                await asyncio.sleep(_LINGER)
            self._unpublished.clear()
            facts, self._untold = self._untold, False
            await self._context.hints.give(hints.OUTBOX, *([hints.FACTS] if facts else []))

    async def _drain(self) -> None:
        """Let runs end, then hand back those that have not; these at once when told to hurry."""
        tasks = [task for _, task in self._running.values()]
        if not tasks:
            return
        drain = self._pool.drain.total_seconds() if self._pace.drain is None else self._pace.drain
        _log.info("worker.draining", runs=len(tasks), seconds=drain)
        hurried = asyncio.create_task(self._context.hurry.wait())
        ending = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait([hurried, ending], timeout=drain, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([hurried, ending])
        for execution, _ in [*self._running.values()]:
            execution.hand_back()
        _, late = await asyncio.wait(tasks, timeout=5.0)
        await _cancel(late)  # the database is away: the leases will end

    def _place(self) -> Place:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        making = Making(self._context.settings.flows, env=environment, on_log=_tell_outside)
        match self._pool.kind:
            case Kind.PROCESS:
                return Forked(making)
            case Kind.DOCKER:
                return Contained(making, self._pool)
            case Kind.KUBERNETES:
                named = self._pool.kubernetes.namespace if self._pool.kubernetes is not None else ""
                return Podded(making, self._pool, ApiCluster(named), namespace=self._context.settings.namespace)
            case Kind.INLINE:
                return Spawned(making)

    def _wear(self) -> Wear:
        """A container's memory is watched by the engine that runs it, or by its node."""
        memory = None if self._pool.kind in (Kind.DOCKER, Kind.KUBERNETES) else self._pool.memory
        return Wear(self._pool.recycle if self._pool.kind is Kind.INLINE else 1, memory)


def _run_of(wake_up: bytes) -> str:
    """The run that it is for; "" where it says none, as one of a later format may."""
    try:
        return str(json.loads(wake_up).get("run", ""))
    except (ValueError, AttributeError):
        return ""


def _tell_outside(line: Log) -> None:
    """What users' modules print when no run of theirs is on."""
    _log.info("worker.child_said", level=line.level, line=line.line)


def _start(*coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(each) for each in coroutines]


async def _until(tasks: Iterable[asyncio.Task[None]], goal: Coroutine[Any, Any, Any]) -> None:
    """Wait for `goal`; the end of one of the tasks before is its failure, raised here."""
    waiting = asyncio.create_task(goal)
    try:
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _cancel([waiting])


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End them. Asked again and again: a client library may swallow a cancellation that comes as its answer does."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_ASK_AGAIN)
