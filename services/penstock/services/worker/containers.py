"""Where a run's code is executed, the adapter `docker`: a container for each child.

`docker run --interactive` brings a container's stdin, stdout and stderr here, so that a child in a container speaks the
same frames as one beside us: it needs no database, no bus, and no password of either. It ends when its stdin does, that
is with its worker; what does not even notice that is removed by name.

Leases are told to a child by the clock that its container has (children.Child.hold).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace

import structlog

from penstock.automations.pools import Pool
from penstock.services.worker.children import Child, ChildStartError, Transport
from penstock.services.worker.places import Making, make

DOCKER = "docker"
_CHILD = ("python", "-P", "-m", "penstock.services.worker.child")
_START = 300.0  # seconds for a container to be there and to import: its image may have to be fetched
_REMOVE = 20.0

_log = structlog.get_logger()


def run_command(pool: Pool, name: str, docker: str = DOCKER) -> list[str]:
    """The command that starts a container of that name, with a child in it.

    Its root file system can be written and goes with it; it gains no privileges, and its processes are reaped.
    """
    command = [docker, "run", "--rm", "--interactive", "--init", "--name", name]
    command += ["--label", f"penstock.pool={pool.name}"]
    command += ["--security-opt", "no-new-privileges", "--stop-timeout", "1"]
    if pool.memory is not None:  # without swap beside it: a ceiling that is reached shall be felt
        command += ["--memory", str(pool.memory), "--memory-swap", str(pool.memory)]
    if pool.cpus is not None:
        command += ["--cpus", f"{pool.cpus:g}"]
    if pool.network:
        command += ["--network", pool.network]
    for variable in sorted(pool.environment):
        command += ["--env", variable]  # its value is in the command's environment: others can read command lines
    return [*command, pool.image, *_CHILD]


class Contained:
    """Each child is the process of a container. Paths of modules are those in the image, relative to its WORKDIR."""

    def __init__(self, making: Making, pool: Pool, docker: str = DOCKER) -> None:
        self._making, self._pool, self._docker = replace(making, timeout=max(making.timeout, _START)), pool, docker

    async def start(self) -> Child:
        return await make(self._making, self._launch)

    def again(self) -> Contained:
        return Contained(self._making, self._pool, self._docker)

    async def stop(self) -> None:
        return

    async def _launch(self, child: asyncio.SubprocessProtocol) -> Transport:
        name = f"penstock-{self._pool.name}-{secrets.token_hex(6)}"
        relay = _Relay(child, [self._docker, "rm", "--force", name])
        command = run_command(self._pool, name, self._docker)
        making = self._making
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: relay,
                *command,
                cwd=making.cwd,
                env={**(os.environ if making.env is None else making.env), **self._pool.environment},
                start_new_session=True,
            )
        except FileNotFoundError:
            raise ChildStartError(
                f"a pool of kind docker needs the command `{self._docker}`, which is not on PATH; install Docker's CLI"
            ) from None
        relay.transport = transport
        return transport


class _Relay(asyncio.SubprocessProtocol):
    """Passes on what comes from the container; its end only when nothing of it is left."""

    transport: asyncio.SubprocessTransport

    def __init__(self, child: asyncio.SubprocessProtocol, remove: Sequence[str]) -> None:
        self._child, self._remove = child, remove

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._child.pipe_data_received(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._child.pipe_connection_lost(fd, exc)

    def process_exited(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        code = self.transport.get_returncode()
        if code is not None and code < 0:  # only the command was killed; else the container has ended, and is removed
            await self._run_remove()
        self._child.process_exited()

    async def _run_remove(self) -> None:
        null = asyncio.subprocess.DEVNULL
        try:
            async with asyncio.timeout(_REMOVE):
                process = await asyncio.create_subprocess_exec(*self._remove, stdin=null, stdout=null, stderr=null)
                await process.wait()
        except (OSError, TimeoutError) as error:
            _log.warning("worker.container_not_removed", command=" ".join(self._remove), error=str(error))
