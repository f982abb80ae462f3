"""Where a run's code is executed: the port, and the two adapters that start processes on this machine.

`Spawned` starts a new interpreter for each child, which imports the users' modules (tenths of a second) and then
carries out one run after another: the pool `inline`. `Forked` forks each child from a process that has imported them
(some milliseconds): the pool `process`, where a child has one run alone. Both give a `Child`, which frames go to and
come from, and which is killed with all that it has started; one contract suite holds for both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from penstock.services.worker.children import Child, ChildStartError, Launch, Transport
from penstock.services.worker.running import OnLog
from penstock.services.worker.template import ENDED, FORKED, ORDER, READY, REPLY, THREADS

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Making:
    """What each child of a place is made with; see `Child.start`.  Seconds."""

    modules: Sequence[str]
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    on_log: OnLog | None = None
    timeout: float = 60.0
    grace: float = 5.0
    silence: float = 60.0
    heartbeat: float = 1.0


class Place(Protocol):
    """Makes the processes in which one worker's runs are carried out."""

    async def start(self) -> Child:
        """A child that has loaded the modules.  Raises ChildStartError."""

    def again(self) -> Place:
        """The same with the modules as they are on disk now; this one goes on with what it holds."""

    async def stop(self) -> None:
        """Start no more children. Those that there are go on until they end."""


class Spawned:
    """Each child is an interpreter of its own."""

    def __init__(self, making: Making) -> None:
        self._making = making

    async def start(self) -> Child:
        return await make(self._making)

    def again(self) -> Spawned:
        return Spawned(self._making)

    async def stop(self) -> None:
        return


class Forked:
    """Each child is forked from a template (template.py), which is started with the first of them."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._template: _Template | None = None
        self._starting = asyncio.Lock()
        self._preload = True
        self._stopped = False

    async def start(self) -> Child:
        if self._stopped:
            raise ChildStartError("no more children are started from modules that have changed since")
        template = await self._running()
        return await make(self._making, template.fork)

    def again(self) -> Forked:
        return Forked(self._making)

    async def stop(self) -> None:
        self._stopped = True
        if self._template is not None:
            await self._template.leave()

    async def _running(self) -> _Template:
        """The template; another one when it has died."""
        async with self._starting:
            if self._template is None or self._template.gone:
                self._template = await self._new()
            return self._template

    async def _new(self) -> _Template:
        if self._preload:
            template, threads = await _Template.start(self._making, self._making.modules)
            if not threads:
                return template
            _log.warning("worker.modules_not_preloaded", threads=threads, reason="importing them starts threads")
            self._preload = False
        template, _ = await _Template.start(self._making, ())
        return template


async def make(making: Making, launch: Launch | None = None) -> Child:
    """A child, with the process that `launch` starts."""
    return await Child.start(
        making.modules,
        cwd=making.cwd,
        env=making.env,
        on_log=making.on_log,
        timeout=making.timeout,
        grace=making.grace,
        silence=making.silence,
        heartbeat=making.heartbeat,
        launch=launch,
    )


class _Template(asyncio.Protocol):
    """The worker's side of a template process."""

    def __init__(self) -> None:
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[int] = self._loop.create_future()
        self._orders = 0
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, _Process] = {}
        self._rest = b""
        self._leaving = False
        self._said: deque[str] = deque(maxlen=20)
        self._ours: socket.socket
        self._transport: asyncio.BaseTransport

    @classmethod
    async def start(cls, making: Making, modules: Sequence[str]) -> tuple[_Template, int]:
        """Returns it, and the number of its threads if it must not be forked from for them, else 0."""
        ours, theirs = socket.socketpair()
        template = cls()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "penstock.services.worker.template", str(theirs.fileno()), *modules),
                cwd=making.cwd,
                env=None if making.env is None else dict(making.env),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        template._listening = asyncio.create_task(template._listen(process))
        template._ours = ours.dup()  # descriptors are sent beside the transport, which knows no such thing
        template._transport, _ = await template._loop.create_unix_connection(lambda: template, sock=ours)
        try:
            async with asyncio.timeout(making.timeout):
                threads = await asyncio.shield(template._ready)
        except (TimeoutError, ConnectionError):
            template._end(process)
            await template._listening
            said = "".join(f"\n  {line}" for line in template._said)
            raise ChildStartError(
                f"the process to fork from did not come up while it imported {', '.join(modules) or 'nothing'}{said}"
            ) from None
        except BaseException:
            template._end(process)
            raise
        return template, threads

    async def fork(self, child: asyncio.SubprocessProtocol) -> Transport:
        """A new child, in the way of `children.Launch`."""
        (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
        process = _Process(child)
        try:
            await process.connect(our_in, our_out, our_err)
            self._orders += 1
            number, asked = self._orders, self._loop.create_future()
            self._asked[number], self._children[number] = asked, process
            self._order(number, [their_in, their_out, their_err])
            process.forked(await asked)
        except ConnectionError:
            process.close()
            raise ChildStartError("the process to fork from has died; another one is started") from None
        except BaseException:
            process.close()
            raise
        finally:
            for descriptor in (their_in, their_out, their_err):
                os.close(descriptor)
        return process

    async def leave(self) -> None:
        """Let the process end as soon as none of its children is left."""
        self._leaving = True
        if not self._children:
            self._transport.close()
            await self._listening

    def _order(self, number: int, descriptors: list[int]) -> None:
        if self.gone:
            raise ConnectionResetError
        # Eight bytes into an empty buffer: they fit, or the process has died.
        socket.send_fds(self._ours, [ORDER.pack(number)], descriptors)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= REPLY.size:
            kind, number, value = REPLY.unpack_from(self._rest)
            self._rest = self._rest[REPLY.size :]
            self._take(kind, number, value)

    def _take(self, kind: bytes, number: int, value: int) -> None:
        if kind in (READY, THREADS) and not self._ready.done():
            self._ready.set_result(value)
        elif kind == FORKED and number in self._asked:
            asked = self._asked.pop(number)
            if asked.done():  # whoever asked has given up
                _kill(value)
            else:
                asked.set_result(value)
        elif kind == ENDED and number in self._children:
            self._children.pop(number).ended(value)
            if self._leaving and not self._children:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._ours.close()
        for waiting in (self._ready, *self._asked.values()):
            if not waiting.done():
                waiting.set_exception(ConnectionResetError())
        self._ready.exception()  # looked at: nobody may be waiting for it any more
        for process in self._children.values():
            if process.pid:  # nobody is left who would tell how they end
                _kill(process.pid)
                process.ended(-signal.SIGKILL)
        self._children.clear()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """What modules print while they are imported; and the end of the process, so that no zombie stays."""
        assert process.stderr is not None  # noqa: S101 -- asked for above
        while line := await process.stderr.readline():
            self._said.append(line.decode("utf-8", "replace").rstrip())
            _log.info("worker.template_said", line=self._said[-1])
        code = await process.wait()
        if not self._leaving:
            _log.info("worker.template_ended", pid=process.pid, exit_code=code)

    def _end(self, process: asyncio.subprocess.Process) -> None:
        self._transport.close()
        with suppress(ProcessLookupError):
            process.kill()

    _listening: asyncio.Task[None]


class _Process:
    """A forked child as its protocol sees it: `children.Transport`."""

    def __init__(self, child: asyncio.SubprocessProtocol) -> None:
        self.pid = 0
        self._child = child
        self._code: int | None = None
        self._pipes: dict[int, asyncio.BaseTransport] = {}

    async def connect(self, stdin: int, stdout: int, stderr: int) -> None:
        """Take our ends of its three pipes."""
        loop = asyncio.get_running_loop()
        for fd, descriptor in ((1, stdout), (2, stderr)):
            reader, pipe = _Pipe(self._child, fd), os.fdopen(descriptor, "rb", buffering=0)
            self._pipes[fd], _ = await loop.connect_read_pipe(partial(_same, reader), pipe)
        writer, pipe = _Pipe(self._child, 0), os.fdopen(stdin, "wb", buffering=0)
        self._pipes[0], _ = await loop.connect_write_pipe(partial(_same, writer), pipe)

    def forked(self, pid: int) -> None:
        """It is there, and has perhaps ended already."""
        self.pid = pid
        if self._code is not None:
            asyncio.get_running_loop().call_soon(self._child.process_exited)

    def ended(self, code: int) -> None:
        """Its end is known."""
        self._code = code
        if self.pid:
            self._child.process_exited()

    def get_pid(self) -> int:
        return self.pid

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self._pipes.get(fd)

    def close(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()


class _Pipe(asyncio.Protocol):
    def __init__(self, child: asyncio.SubprocessProtocol, fd: int) -> None:
        self._child, self._fd = child, fd

    def data_received(self, data: bytes) -> None:
        self._child.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._child.pipe_connection_lost(self._fd, exc)


def _same(protocol: _Pipe) -> _Pipe:
    return protocol


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
