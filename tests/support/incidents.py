"""Incidents: a process of the fleet is killed, or stopped past its leases and continued.

A killed process is started again at once. Beside a stopped one another is started, takes over what the stopped one
held, and then the stopped one goes on, unaware.
"""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field

import psutil
import sqlalchemy as sa
from tests.support.fleet import Fleet, Process

from penstock.services.database import clock, tables

# Per service: the rows that one instance holds, and the column that names it.
_HELD = {
    "engine": (tables.position, tables.position.c.owner),
    "worker": (tables.run, tables.run.c.worker),
    "notifier": (tables.delivery, tables.delivery.c.owner),
}


@dataclass(frozen=True, slots=True)
class Incident:
    """What was done to a process, and when (seconds since the epoch).  held: ids of runs or deliveries it had then."""

    service: str
    what: str
    at: float
    held: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A process that stands still, with those of its children that do."""

    incident: Incident
    process: Process
    children: list[psutil.Process]

    def go_on(self) -> None:
        """SIGCONT."""
        for child in self.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()
        self.process.go_on()


@dataclass
class Orchestrator:
    """Keeps one process of each service going, whatever is done to them."""

    fleet: Fleet
    running: dict[str, Process] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)

    async def start(self, *services: str) -> None:
        """The first process of each."""
        self.running = await self.fleet.start_all(*services)

    async def kill(self, service: str) -> None:
        """SIGKILL; another one is started at once."""
        victim = self.running[service]
        at = time.time()
        victim.kill()
        held = await self._held(service, victim)  # its leases have not ended yet: what it had is still in its name
        self.incidents.append(Incident(service, "killed", at, held))
        self.running[service] = self.fleet.spawn(service)

    async def stop_past_its_lease(self, service: str) -> None:
        """SIGSTOP, until another process has all that it held; then SIGCONT."""
        (await self.stop(service)).go_on()

    async def stop_with_children_past_its_lease(self, service: str) -> None:
        """As `stop_past_its_lease`, for all processes of the service: what pausing a container does."""
        (await self.stop(service, with_children=True)).go_on()

    async def stop(self, service: str, *, with_children: bool = False) -> Stopped:
        """SIGSTOP, until another process has all that it held; the caller lets it go on."""
        victim = self.running[service]
        children = psutil.Process(victim.popen.pid).children(recursive=True) if with_children else []
        at = time.time()
        victim.pause()
        for child in children:
            child.suspend()
        held = await self._held(service, victim)
        self.incidents.append(Incident(service, "stopped", at, held))
        self.running[service] = self.fleet.spawn(service)
        await self.fleet.rig.until(lambda: self._taken_over(service, victim), what=f"{service} to be taken over")
        return Stopped(self.incidents[-1], victim, children)

    async def retire(self) -> None:
        """End, with SIGTERM, every process that has been stopped and replaced; each must end well."""
        retired = [each for each in self.fleet.processes if each.alive and each not in self.running.values()]
        for process in retired:
            process.popen.terminate()
        for process in retired:
            code = process.popen.wait(25)
            assert code == 0, f"{process.name} ended with {code} on SIGTERM:\n{process.text()[-3000:]}"

    def assert_nobody_fell(self) -> None:
        """No process ended but those that were killed."""
        fallen = [each for each in self.fleet.processes if each.popen.poll() not in (None, 0, -signal.SIGKILL)]
        assert not fallen, "\n".join(f"{each.name}: {each.popen.returncode}\n{each.text()[-3000:]}" for each in fallen)
        assert all(process.alive for process in self.running.values())

    async def _held(self, service: str, process: Process) -> frozenset[str]:
        if service == "engine":
            return frozenset()
        table, owner = _HELD[service]
        return frozenset(row.id for row in await self.fleet.rig.rows(table, _of(owner, process), *_open(service)))

    async def _taken_over(self, service: str, process: Process) -> bool:
        """Whether its leases have ended, and nothing that is left to do is in its name."""
        table, owner = _HELD[service]
        mine = [_of(owner, process), *_open(service)]
        if service != "engine":
            mine.append(table.c.lease_until > clock.now())
        return not await self.fleet.rig.rows(table, *mine)


def _of(owner: sa.ColumnElement[str | None], process: Process) -> sa.ColumnElement[bool]:
    return owner.like(f"%-{process.popen.pid}-%")


def _open(service: str) -> list[sa.ColumnElement[bool]]:
    if service == "worker":
        return [tables.run.c.ended.is_(None)]
    return [tables.delivery.c.status == "pending"] if service == "notifier" else []
