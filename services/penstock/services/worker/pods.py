"""Where a run's code is executed, the adapter `kubernetes`: a Job with one pod for each run.

A child is a place for a run: its Job is made when it is given one, with the run in its labels, and removed when the run
has ended, however it did. The child in the pod (pod.py) is executed through the cluster's API, whose WebSocket carries
the frames that every child speaks: the pod needs no database, no bus, and no password of either. A connection that is
lost closes the child's stdin, which ends it and so its pod; where nobody notices, the run's lease does (frames.Hold).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import structlog

from penstock.automations.pools import Kubernetes, Pool
from penstock.events.errors import PenstockError
from penstock.flows.states import State
from penstock.services.worker.children import Child, ChildBusyError, ChildStartError, Transport
from penstock.services.worker.cluster import Cluster, ClusterError
from penstock.services.worker.frames import Execute, Finished, FlowInfo, Load, Log, Problem
from penstock.services.worker.jobs import CHILD, Ending, Purpose, coming, ending, job_manifest, job_name
from penstock.services.worker.places import Making
from penstock.services.worker.running import OnAsk, OnLog, OnStarted, OnTask

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)  # channels of the connection: the first byte of each message
_PIECE = 1 << 16  # bytes of one message
_LOOK = 1.0  # seconds between looks at a pod that starts
_LOOKS = 3  # at a pod whose child has ended: the cluster learns of that a little later
_CLEAN_UP = 20.0  # seconds
_KILLED = -9

_log = structlog.get_logger()


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
        def job(child: PodChild) -> _Job:
            return _Job(child, self._cluster, self._pool, self._look_each)

        return PodChild(self._making, holds, job, self._namespace)

    async def _look(self) -> Holds:
        child = self._child(Holds({}, []))
        try:
            await child.come_up(Purpose(self._namespace), child.tell)
            return Holds(child.flows, child.problems)
        finally:
            await child.stop()


class PodChild(Child):
    """A place for a run. Its Job is there from `execute` on, until it is stopped or killed, or the run ends it."""

    def __init__(self, making: Making, holds: Holds, job: Callable[[PodChild], _Job], namespace: str) -> None:
        super().__init__(making.on_log, making.grace, making.silence)
        self.flows, self.problems = holds.flows, holds.problems
        self._making, self._make_job, self._namespace = making, job, namespace
        self._job: _Job | None = None
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
            await self._await_loaded(list(self._making.modules), job.left())
            if not self.alive or self._end_as is not None:
                raise ChildStartError("its pod ended before its code began")  # noqa: TRY301 -- killed like the others
        except (ChildStartError, ClusterError) as error:
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


class _Job:
    """One Job and the connection into its pod: `children.Transport` of its child."""

    def __init__(self, child: PodChild, cluster: Cluster, pool: Pool, look: float) -> None:
        self.ended_as: Ending | None = None
        self._child, self._cluster, self._pool, self._look = child, cluster, pool, look
        self._name = job_name(pool.name, secrets.token_hex(6))
        self._pod = ""
        self._code: int | None = None
        self._until = time.monotonic() + (pool.kubernetes or Kubernetes()).start.total_seconds()
        self._making: asyncio.Task[None] | None = None  # the request that makes the Job
        self._connection: ClientWebSocketResponse | None = None
        self._pipe = _Stdin()
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._killed = asyncio.Event()

    def left(self) -> float:
        """Seconds that it may still take to come up."""
        return max(0.0, self._until - time.monotonic())

    async def start(self, purpose: Purpose, tell: Callable[[str], None]) -> None:
        """Make it, and open the connection when its pod is there.  tell: hears what it waits for.

        Raises ChildStartError, ClusterError.
        """
        killed = asyncio.create_task(self._killed.wait())
        starting = asyncio.create_task(self._start(purpose, tell))
        try:
            await asyncio.wait([killed, starting], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise ChildStartError("its Job was removed before its code began")
            starting.result()
        finally:
            killed.cancel()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    async def _start(self, purpose: Purpose, tell: Callable[[str], None]) -> None:
        manifest = job_manifest(self._pool, self._name, purpose)
        self._making = asyncio.create_task(self._cluster.create(manifest))
        await asyncio.shield(self._making)  # what was sent may be done: the Job is removed after that
        await self._until_ready(tell)
        connection = await self._cluster.execute(self._pod, CHILD)
        if self._killed.is_set():
            await connection.close()
            raise ChildStartError("its Job was removed before its code began")
        self._connection = connection
        self._reading = asyncio.create_task(self._read(connection))

    async def _until_ready(self, tell: Callable[[str], None]) -> None:
        told = ""
        while True:
            try:
                found = coming(await self._cluster.pod(self._name))
            except ClusterError as error:
                if not self.left():
                    raise
                _log.warning("worker.pod_not_seen", job=self._name, error=str(error))
            else:
                self._pod = found.name
                if found.ready:
                    return
                if found.hopeless:
                    raise ChildStartError(f"its pod cannot start: {found.reason}{await self._said()}")
                if not self.left():
                    allowed = (self._pool.kubernetes or Kubernetes()).start.total_seconds()
                    raise ChildStartError(f"its pod did not start within {allowed:g} s: {found.reason}")
                if found.reason != told:
                    tell(f"its pod is not there yet: {found.reason}")
                    told = found.reason
            await asyncio.sleep(min(self._look, self.left()))

    async def _said(self) -> str:
        if not self._pod:
            return ""
        with suppress(ClusterError):  # it may not have had an output
            return "".join(f"\n  {line}" for line in (await self._cluster.output(self._pod)).splitlines())
        return ""

    # What children need of a process.

    def get_pid(self) -> int:
        return 0

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return cast("asyncio.BaseTransport", self._pipe) if fd == 0 else None

    def close(self) -> None:
        self._pipe.close()

    def kill(self) -> None:
        """Remove it; its child is told when that has been done."""
        self._killed.set()
        self._end()

    async def _read(self, connection: ClientWebSocketResponse) -> None:
        """What comes from the pod, until it has ended or the connection is lost."""
        writing = asyncio.create_task(self._pipe.pump(connection))
        code: int | None = None
        try:
            async for message in connection:
                if not isinstance(message.data, bytes) or not message.data:
                    continue
                channel, data = message.data[0], message.data[1:]
                if channel in (_STDOUT, _STDERR):
                    self._child.pipe_data_received(channel, data)
                elif channel == _STATUS:
                    code = _exit_code(data)
                    break
        except Exception as error:  # whatever it is, the run must not wait for what will never come
            _log.warning("worker.pod_connection_lost", job=self._name, error=str(error) or type(error).__name__)
        finally:
            writing.cancel()
        self._code = code if self._code is None else self._code
        self._end()

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._come_to_end())

    async def _come_to_end(self) -> None:
        """Everything is let go of, and the cluster is asked why where nobody here knows."""
        try:
            async with asyncio.timeout(_CLEAN_UP):
                if self._connection is not None:
                    await self._connection.close()  # first of all: the child's stdin ends with it
                if self._making is not None:
                    await asyncio.gather(self._making, return_exceptions=True)
                if not self._killed.is_set() and self._code != 0:
                    await self._ask_why()
                if self._making is not None:
                    await self._cluster.delete(self._name)
        except (PenstockError, TimeoutError, OSError) as error:
            _log.warning("worker.job_not_removed", job=self._name, error=str(error) or "it took too long")
        except Exception:  # its child must hear of the end, whatever happened
            _log.exception("worker.job_not_removed", job=self._name)
        self._code = _KILLED if self._code is None else self._code
        for fd in (_STDOUT, _STDERR):
            self._child.pipe_connection_lost(fd, None)
        self._child.process_exited()

    async def _ask_why(self) -> None:
        for last in (False,) * (_LOOKS - 1) + (True,):
            self.ended_as = ending(await self._cluster.job(self._name), await self._cluster.pod(self._name), self._pool)
            if self.ended_as is not None or last:
                break
            await asyncio.sleep(self._look)
        if self.ended_as is None and self._code is None:
            self.ended_as = Ending(State.CRASHED, "the connection to its pod was lost")
        if self.ended_as is not None:
            self._child.explain(self.ended_as)


class _Stdin:
    """What is written to a child, on its way."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._closing = False

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            self._pieces.put_nowait(data[start : start + _PIECE])

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    async def pump(self, connection: ClientWebSocketResponse) -> None:
        with suppress(ConnectionError):  # the reader notices, too
            while True:
                await connection.send_bytes(bytes((_STDIN,)) + await self._pieces.get())


def _exit_code(status: bytes) -> int | None:
    """Of the command that was executed, as the cluster says it; None where it does not know."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        told = json.loads(status)
        if told["status"] == "Success":
            return 0
        for cause in told["details"]["causes"]:
            if cause["reason"] == "ExitCode":
                return int(cause["message"])
    return None


def _line(run_id: str, text: str) -> Log:
    return Log(run_id=run_id, at=time.time_ns() // 1_000, level="INFO", line=text)
