"""The parent's side of one warm child process: start it, have it carry out runs, notice how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

import msgspec
import psutil

from penstock.events.errors import PenstockError
from penstock.services.worker.frames import (
    FROM_CHILD,
    Asked,
    Cancel,
    Execute,
    Finished,
    FlowInfo,
    Frame,
    FrameBuffer,
    FrameError,
    FromChild,
    Heartbeat,
    Hold,
    Load,
    Loaded,
    Log,
    Problem,
    Recorded,
    Started,
    Stop,
    TaskFinished,
    encode,
)
from penstock.services.worker.running import OnAsk, OnLog, OnStarted, OnTask, Running, exit_reason

_SECOND_LOOK = 0.25  # seconds
_DRAIN = 0.25  # seconds for the rest of a dead child's output; a process that it forked may hold the pipe open


class ChildError(PenstockError):
    """A child process cannot be used."""


class ChildStartError(ChildError):
    """A child did not come up."""


class ChildBusyError(ChildError):
    """A child has a run already; it takes one at a time."""


class ChildGoneError(ChildError):
    """A child has ended; start another one."""


class Transport(Protocol):
    """What a child needs of its process; asyncio's transport of a subprocess has it."""

    def get_pid(self) -> int: ...

    def get_returncode(self) -> int | None: ...

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None: ...

    def close(self) -> None: ...


# Starts a process that speaks frames on its stdin and stdout, in a session of its own, and tells the protocol of it.
Launch = Callable[[asyncio.SubprocessProtocol], Awaitable[Transport]]


class Child(asyncio.SubprocessProtocol):
    """One child process. It carries out one run at a time; after its end a new one is started in its place.

    flows: what its modules hold, by name.  problems: what of them cannot be used.  runs: how many it has ended.
    spent: it carries the rest of a run (see `Finished.spent`) and should be stopped.
    """

    def __init__(self, on_log: OnLog | None, grace: float, silence: float) -> None:
        self.flows: dict[str, FlowInfo] = {}
        self.problems: list[Problem] = []
        self.runs = 0
        self.spent = False
        self.returncode: int | None = None
        self._loop = asyncio.get_running_loop()
        self._grace, self._silence = grace, silence
        self._on_log: OnLog = on_log or _ignore
        self._frames = FrameBuffer(FROM_CHILD)
        self._raw = b""
        self._last_lines: deque[str] = deque(maxlen=20)
        self._loaded: asyncio.Future[Loaded | None] = self._loop.create_future()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._open = {1, 2}  # pipes that may still bring something
        self._running: Running | None = None
        self._heard = time.monotonic()
        self._ahead = 0.0  # seconds by which the child's monotonic clock is ahead of ours, or less
        self._transport: Transport
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        modules: Iterable[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        on_log: OnLog | None = None,
        timeout: float = 60.0,
        grace: float = 5.0,
        silence: float = 60.0,
        heartbeat: float = 1.0,
        launch: Launch | None = None,
    ) -> Child:
        """Start a process and have it import `modules` (paths relative to `cwd`, or dotted names).

        launch: how the process comes to be; none: a new interpreter, in `cwd` and with `env`.
        on_log: takes what is printed outside of runs.  timeout: seconds for starting and importing.  grace: seconds
        between asking a run to end and killing it.  silence: seconds without a sign of life until a child that has a
        run is killed (code that holds the interpreter's lock gives none).
        A module that does not import is in `problems`.  Raises ChildStartError when the process itself fails.
        """
        named = list(modules)
        child = cls(on_log, grace, silence)
        child._transport = await (launch or _new_interpreter(cwd, env))(child)
        child._send(Load(modules=named, heartbeat=heartbeat))
        try:
            await child._await_loaded(named, timeout)
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._transport.get_pid()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._exited.is_set()

    @property
    def busy(self) -> bool:
        """Whether it has a run."""
        return self._running is not None

    def silent_for(self) -> float:
        """Seconds since its last frame."""
        return time.monotonic() - self._heard

    def rss(self) -> int | None:
        """Bytes of memory it occupies, or None when it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.alive else None
        except psutil.NoSuchProcess:
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
        """Carry out a run and say how it ended; state `crashed` when the process died.

        on_task: journals a finished call; the run goes on when it returns. If it raises, the child is killed and the
        error raised here: what could not be journalled must not be built upon. So it is when this call is cancelled.
        on_ask: keeps what the run asks for, likewise; what it returns, if anything, is why that cannot be.
        All calls of on_task and on_ask have returned when this returns.  Raises ChildBusyError, ChildGoneError.
        """
        running = self._begin(order, on_task, on_log or _ignore, on_started or _ignore, on_ask or _refuse)
        try:
            finished = await running.done
            await asyncio.gather(*running.journalling)
        except BaseException:
            await self.kill()
            raise
        finally:
            self._end(running)
        self.spent = self.spent or finished.spent
        return finished

    def cancel(self, run_id: str, reason: str = "cancelled") -> None:
        """Ask the run to end (`cancelled` or `timed_out`); it is killed when it has not after `grace` seconds."""
        running = self._running
        if running is None or running.order.run_id != run_id:
            return
        self._send(Cancel(run_id=run_id, epoch=running.order.epoch, reason=reason))
        told = f"it was {reason.replace('_', ' ')}, did not end within {self._grace:g} s, and its process was killed"
        running.timers.append(self._loop.call_later(self._grace, self._force, running, reason, told))

    def end(self, state: str, reason: str) -> None:
        """Kill it; its run, if it has one, ends in that state for that reason."""
        self._force(self._running, state, reason)

    def hold(self, run_id: str, until: float) -> None:
        """Let the run go on until then (our monotonic clock); afterwards the child ends itself.

        The child is told by its own clock, which on another machine is another one. Its frames took some time to come
        here, so that its clock is taken for slower than it is: it ends itself then or a little earlier, never later.
        """
        running = self._running
        if running is not None and running.order.run_id == run_id:
            self._send(Hold(run_id=run_id, epoch=running.order.epoch, until=until + self._ahead))

    async def kill(self) -> None:
        """End the process and what it started, at once."""
        self._kill()
        await self._exited.wait()

    async def stop(self, timeout: float = 5.0) -> None:
        """Let it leave after its present run; kill it when it has not within `timeout` seconds."""
        self._send(Stop())
        try:
            async with asyncio.timeout(timeout):
                await self._exited.wait()
        except TimeoutError:
            await self.kill()

    async def wait_exited(self) -> int | None:
        """Wait for its end; gives the exit code, negative for a signal."""
        await self._exited.wait()
        return self.returncode

    # What asyncio tells of the process.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._take_raw(data)
            return
        self._heard = time.monotonic()
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except FrameError as error:
            self._force(self._running, "crashed", str(error))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self._drained.set()

    def process_exited(self) -> None:
        self._ending = self._loop.create_task(self._note_exit())

    async def _note_exit(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN):
                await self._drained.wait()
        except TimeoutError:
            pass  # a grandchild holds the pipe; what the child itself wrote has been read
        self.returncode = self._transport.get_returncode()
        self._exited.set()
        self._transport.close()
        if self._raw:
            self._take_raw(b"\n")
        if not self._loaded.done():
            self._loaded.set_result(None)
        if self._running is not None and not self._running.done.done():
            self._running.done.set_result(self._crashed(self._running))

    def _crashed(self, running: Running) -> Finished:
        state, error = running.killed_as or ("crashed", f"its process {exit_reason(self.returncode)} during the run")
        at = time.time_ns() // 1_000
        tail = "\n".join(self._last_lines) or None
        order = running.order
        end = Finished(run_id=order.run_id, epoch=order.epoch, state=state, at=at, error=error, traceback=tail)
        return msgspec.structs.replace(end, told=False)

    def _begin(self, order: Execute, on_task: OnTask, on_log: OnLog, on_started: OnStarted, on_ask: OnAsk) -> Running:
        if self._running is not None:
            raise ChildBusyError(f"child {self.pid} has run {self._running.order.run_id}; it takes one at a time")
        if not self.alive:
            raise ChildGoneError(f"child {self.pid} {exit_reason(self.returncode)}; start another one")
        running = Running(order, on_task, on_log, on_started, on_ask, self._loop.create_future())
        self._running = running
        self._heard = time.monotonic()
        self._last_lines.clear()
        self._send(msgspec.structs.replace(order, until=order.until + self._ahead))
        self._watch(running)
        return running

    def _end(self, running: Running) -> None:
        self._running = None
        self.runs += 1
        for timer in (*running.timers, running.watch):
            if timer is not None:
                timer.cancel()
        for task in running.journalling:
            task.cancel()

    def _watch(self, running: Running, suspected: bool = False) -> None:
        """Kill a child that has gone silent; its own threads give signs of life as long as the interpreter can run."""
        left = self._silence - self.silent_for()
        if left < 0 and suspected:
            told = f"its process gave no sign of life for {self._silence:g} s (blocked interpreter?) and was killed"
            self._force(running, "crashed", told)
            return
        # Looked at twice: a worker that was itself stopped and continued has first to read what came meanwhile.
        wait = left + 0.01 if left > 0 else _SECOND_LOOK
        running.watch = self._loop.call_later(wait, self._watch, running, left < 0)

    def _take(self, frame: FromChild) -> None:
        running = self._running
        if isinstance(frame, Loaded | Heartbeat) and frame.clock is not None:
            self._ahead = frame.clock - time.monotonic()
        if isinstance(frame, Loaded):
            if not self._loaded.done():
                self._loaded.set_result(frame)
        elif isinstance(frame, Log):
            self._tell(frame)
        elif running is None:
            return
        elif isinstance(frame, TaskFinished | Asked):
            task = self._loop.create_task(self._journal(running, frame))
            running.journalling.add(task)
            task.add_done_callback(running.journalling.discard)
        elif isinstance(frame, Started):
            self._note_started(running, frame)
        elif isinstance(frame, Finished) and not running.done.done():
            running.done.set_result(frame)

    async def _journal(self, running: Running, frame: TaskFinished | Asked) -> None:
        refused = ""
        try:
            if isinstance(frame, TaskFinished):
                await running.on_task(frame)
            else:
                refused = await running.on_ask(frame)
        except Exception as error:  # it is raised by `execute`, whatever it is
            running.fail(error)
            self._kill()
        else:
            self._send(Recorded(run_id=frame.run_id, call=frame.call, refused=refused))

    def _note_started(self, running: Running, frame: Started) -> None:
        flow = self.flows.get(running.order.flow)
        if flow is not None and flow.timeout is not None:
            told = f"it took longer than its timeout of {flow.timeout:g} s, could not be interrupted, and was killed"
            limit = flow.timeout + self._grace
            running.timers.append(self._loop.call_later(limit, self._force, running, "timed_out", told))
        self._call(running.on_started, frame)

    def _tell(self, line: Log) -> None:
        running = self._running
        self._call(running.on_log if running and line.run_id == running.order.run_id else self._on_log, line)

    def _call(self, callback: Callable[[Any], None], argument: object) -> None:
        try:
            callback(argument)
        except Exception as error:  # as for on_task: raised by `execute`, and never by asyncio's reading
            if self._running is not None:
                self._running.fail(error)
            self._kill()

    def _take_raw(self, data: bytes) -> None:
        """Output past Python: of subprocesses, of C code, of a dying interpreter."""
        *lines, self._raw = (self._raw + data).split(b"\n")
        if len(self._raw) > 32_768:
            lines, self._raw = [*lines, self._raw], b""
        run_id = self._running.order.run_id if self._running else ""
        for line in lines:
            text = line.decode("utf-8", "replace").replace("\0", "␀")
            self._last_lines.append(text)
            self._tell(Log(run_id=run_id, at=time.time_ns() // 1_000, level="INFO", line=text))

    def _force(self, running: Running | None, state: str, reason: str) -> None:
        if running is not self._running:
            return  # that run has ended; the child may have another one
        if running is not None and running.killed_as is None:
            running.killed_as = state, reason
        self._kill()

    def _kill(self) -> None:
        if self._transport.get_returncode() is None:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(self.pid, signal.SIGKILL)

    def _send(self, frame: Frame) -> None:
        # uvloop's pipes are no subclasses of asyncio's, hence no isinstance.
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if self.alive and pipe is not None and not pipe.is_closing():
            pipe.write(encode(frame))

    async def _await_loaded(self, modules: list[str], timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                loaded = await asyncio.shield(self._loaded)
            if loaded is not None:
                self.flows, self.problems = loaded.flows, loaded.problems
                return
        end = f"did not come up within {timeout:g} s" if self.alive else exit_reason(self.returncode)
        said = "".join(f"\n  {line}" for line in self._last_lines)
        raise ChildStartError(f"a child process {end} while it imported {', '.join(modules) or 'nothing'}{said}")


async def _refuse(asked: Asked) -> str:
    """For orders whose giver keeps nothing."""
    return f"nobody keeps an {asked.what} for this run"


def _new_interpreter(cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None) -> Launch:
    async def launch(child: asyncio.SubprocessProtocol) -> Transport:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: child,
            *(sys.executable, "-P", "-m", "penstock.services.worker.child"),
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,  # Ctrl-C is the worker's; and the child can be killed with all that it started
        )
        return transport

    return launch


def _ignore(_: object) -> None:
    """For callbacks that nobody asked for."""
