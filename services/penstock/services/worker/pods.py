"""Where a run's code is executed, the adapter `kubernetes`: a Job with one pod for each run.

A child is a place for a run: its Job is made when it is given one, with the run in its labels, and removed when the run
has ended, however it did. The child in the pod (pod.py) is executed through the cluster's API, whose WebSocket carries
the frames that every child speaks: the pod needs no database, no bus, and no password of either. A connection that is
lost closes the child's stdin, which ends it and so its pod; where nobody notices, the run's lease does (frames.Hold).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec

from penstock.automations.pools import Pool
from penstock.services.worker.children import Child, ChildBusyError, ChildStartError, Transport
from penstock.services.worker.cluster import Cluster, ClusterError
from penstock.services.worker.frames import Execute, Finished, FlowInfo, Load, Log, Problem
from penstock.services.worker.job import Job
from penstock.services.worker.jobs import Ending, Purpose
from penstock.services.worker.places import Making
from penstock.services.worker.running import OnAsk, OnLog, OnStarted, OnTask

_LOOK = 1.0  # seconds between looks at a pod that starts


@dataclass(frozen=True, slots=True)
class Holds:
    """What the image of a pool holds."""

    flows: dict[str, FlowInfo]
    problems: list[Problem]


class Podded:
    """Each child is a place for one run after another, in a Job. What the image holds is looked at first, in a Job."""

    def __init__(
        self, making: Making, pool: Pool, cluster: Cluster, *, namespace: str = "default", look: float = _LOOK
    ) -> None:
        """namespace: of Penstock, as labels tell it.  look: seconds between looks at a pod that starts."""
        self._making, self._pool, self._cluster = making, pool, cluster
        self._namespace, self._look_each = namespace, look
        self._holds: Holds | None = None
        self._looking = asyncio.Lock()
        self._sharing: set[Podded] = {self}  # the places with this cluster

    async def start(self) -> Child:
        async with self._looking:
            if self._holds is None:
                self._holds = await self._look()
        return self._child(self._holds)

    def again(self) -> Podded:
        other = Podded(self._making, self._pool, self._cluster, namespace=self._namespace, look=self._look_each)
        other._sharing = self._sharing
        other._sharing.add(other)
        return other

    async def stop(self) -> None:
        self._sharing.discard(self)
        if not self._sharing:
            await self._cluster.close()

    def _child(self, holds: Holds) -> PodChild:
        def job(child: PodChild) -> Job:
            return Job(child, self._cluster, self._pool, explain=child.explain, look=self._look_each)

        return PodChild(self._making, holds, job, self._doubt)

    def _doubt(self) -> None:
        """A pod did not start: no more runs are taken on until one has, in which the image is looked at again."""
        self._holds = None

    async def _look(self) -> Holds:
        child = self._child(Holds({}, []))
        try:
            await child.come_up(Purpose(self._namespace), child.tell)
            return Holds(child.flows, child.problems)
        finally:
            await child.stop()


class PodChild(Child):
    """A place for a run. Its Job is there from `execute` on, until it is stopped or killed, or the run ends it."""

    def __init__(
        self, making: Making, holds: Holds, job: Callable[[PodChild], Job], failed: Callable[[], None]
    ) -> None:
        """failed: called when its pod has not started, for a reason of the cluster."""
        super().__init__(making.on_log, making.grace, making.silence)
        self.flows, self.problems = holds.flows, holds.problems
        self._making, self._make_job, self._failed = making, job, failed
        self._job: Job | None = None
        self._coming: Execute | None = None  # the run whose pod is being started
        self._end_as: tuple[str, str] | None = None  # state and reason, while it is
        self._until = 0.0  # of the run's lease, by our clock

    @property
    def pid(self) -> int:
        """A process of another machine; 0."""
        return 0

    @property
    def busy(self) -> bool:
        return self._coming is not None or super().busy

    def rss(self) -> int | None:
        """Its node looks after that."""
        return None

    async def execute(
        self,
        order: Execute,
        *,
        on_task: OnTask,
        on_log: OnLog | None = None,
        on_started: OnStarted | None = None,
        on_ask: OnAsk | None = None,
    ) -> Finished:
        """As Child; a pod that does not start ends the try in state `crashed`, with the reason."""
        if self.busy:
            raise ChildBusyError(f"a run was given to a pod that has one, or starts for one: {order.run_id}")
        self._until = order.until
        if self._job is None and self.alive:
            failed = await self._come_up_for(order, on_log or self.tell)
            if failed is not None:
                return failed
        renewed = msgspec.structs.replace(order, until=self._until)
        return await super().execute(renewed, on_task=on_task, on_log=on_log, on_started=on_started, on_ask=on_ask)

    def cancel(self, run_id: str, reason: str = "cancelled") -> None:
        if self._coming is not None and self._coming.run_id == run_id:
            self._end_as = self._end_as or (reason, f"it was {reason.replace('_', ' ')} before its code began")
            self._kill()
        else:
            super().cancel(run_id, reason)

    def end(self, state: str, reason: str) -> None:
        if self._coming is not None:
            self._end_as = self._end_as or (state, reason)
            self._kill()
        else:
            super().end(state, reason)

    def hold(self, run_id: str, until: float) -> None:
        if self._coming is not None and self._coming.run_id == run_id:
            self._until = until  # it is told with the run
        else:
            super().hold(run_id, until)

    async def stop(self, timeout: float = 5.0) -> None:
        if self._job is None:
            self._leave_unused()
        else:
            await super().stop(timeout)

    async def come_up(self, purpose: Purpose, on_log: OnLog) -> None:
        """Have the Job made, and its child load the modules.  Raises ChildStartError; it is of no use after that."""
        self._job = job = self._make_job(self)
        self._transport = cast("Transport", job)
        try:
            await job.start(purpose, lambda line: on_log(_line(purpose.run, line)))
            self._send(Load(modules=list(self._making.modules), heartbeat=self._making.heartbeat))
            await self._await_loaded(list(self._making.modules), self._making.timeout)
            if not self.alive or self._end_as is not None:
                raise ChildStartError("its pod ended before its code began")  # noqa: TRY301 -- killed like the others
        except (ChildStartError, ClusterError) as error:
            if not job.killed:
                self._failed()
            await self.kill()
            told = str(error) if job.ended_as is None else job.ended_as.reason
            raise ChildStartError(told) from None
        except BaseException:
            self._kill()
            raise

    def tell(self, line: Log) -> None:
        """Pass on what belongs to no run."""
        self._on_log(line)

    def explain(self, found: Ending) -> None:
        """The cluster's reason for the end of the pod; one of our own goes before it."""
        if self._running is not None and self._running.killed_as is None:
            self._running.killed_as = found.state.value, found.reason

    async def _come_up_for(self, order: Execute, on_log: OnLog) -> Finished | None:
        """What became of the run, where no pod did."""
        self._coming = order
        try:
            await self.come_up(Purpose(order.namespace, order.run_id, order.flow, order.epoch), on_log)
        except ChildStartError as error:
            state, reason = self._end_as or ("crashed", str(error))
        else:
            return None
        finally:
            self._coming = None
        at = time.time_ns() // 1_000
        return Finished(run_id=order.run_id, epoch=order.epoch, state=state, at=at, error=reason, told=False)

    def _leave_unused(self) -> None:
        self.returncode = 0
        self._exited.set()

    def _kill(self) -> None:
        if self._job is None:
            self._leave_unused()
        else:
            self._job.kill()


def _line(run_id: str, text: str) -> Log:
    return Log(run_id=run_id, at=time.time_ns() // 1_000, level="INFO", line=text)
