"""One Job of a cluster, from the request that makes it to its removal, and the connection into its pod."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import structlog

from penstock.automations.pools import Kubernetes, Pool
from penstock.events.errors import PenstockError
from penstock.flows.states import State
from penstock.services.worker.children import ChildStartError
from penstock.services.worker.cluster import Cluster, ClusterError
from penstock.services.worker.jobs import CHILD, Ending, Purpose, coming, ending, job_manifest, job_name

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)  # channels of the connection: the first byte of each message
_PIECE = 1 << 16  # bytes of one message
_LOOKS = 3  # at a pod whose child has ended: the cluster learns of that a little later
_CLEAN_UP = 20.0  # seconds
_KILLED = -9

_log = structlog.get_logger()


class Job:
    """One Job and the connection into its pod: `children.Transport` of its child."""

    def __init__(
        self,
        child: asyncio.SubprocessProtocol,
        cluster: Cluster,
        pool: Pool,
        *,
        explain: Callable[[Ending], None],
        look: float,
    ) -> None:
        """explain: told why it has ended, before the child is.  look: seconds between looks at a pod that starts."""
        self.ended_as: Ending | None = None
        self._child, self._cluster, self._pool, self._look = child, cluster, pool, look
        self._explain = explain
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

    @property
    def killed(self) -> bool:
        """Whether it was removed from here."""
        return self._killed.is_set()

    def left(self) -> float:
        """Seconds that its pod may still take to be there."""
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
            self._explain(self.ended_as)


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
