"""Penstock as its users run it in production: one process per service, on real Kafka, PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.support.rig import Rig, open_rig, until
from tests.support.services.process import free_port

from penstock.services.api.keys import ensure_owner_key

READY = "process.ready"


@dataclass
class Process:
    """One `penstock service NAME`, with its log in a file."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it runs (or is stopped)."""
        return self.popen.poll() is None

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL: no last words."""
        self.popen.kill()
        self.popen.wait(10)

    def pause(self) -> None:
        """SIGSTOP."""
        self.popen.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.popen.send_signal(signal.SIGCONT)

    def terminate(self, within: float = 25) -> int:
        """SIGTERM, and wait.  Returns the exit code."""
        self.popen.terminate()
        return self.popen.wait(within)


@dataclass
class Fleet:
    """Processes that share three URLs; `rig` looks into their database and their bus."""

    rig: Rig
    environment: dict[str, str]
    folder: Path
    key: str
    port: int
    processes: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The API's."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.AsyncClient:
        """Speaks to the API as the owner."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30, trust_env=False
        )

    def spawn(self, *names: str, **more: str) -> Process:
        """Start a process without waiting. more: further environment variables."""
        label = "-".join(names)
        log = self.folder / f"{label}-{len(self.processes)}.log"
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", "penstock.services.cli", "service", *names],
                env={**self.environment, **more},
                cwd=self.folder,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process = Process(label, popen, log)
        self.processes.append(process)
        return process

    async def start(self, *names: str, **more: str) -> Process:
        """Start a process and wait until it does its job."""
        process = self.spawn(*names, **more)
        await self.ready(process)
        return process

    async def start_all(self, *names: str) -> dict[str, Process]:
        """Start one process for each name, side by side, and wait for all."""
        started = {name: self.spawn(name) for name in names}
        for process in started.values():
            await self.ready(process)
        return started

    async def ready(self, process: Process) -> None:
        """Until it has said so."""

        async def said() -> bool:
            if not process.alive:
                raise AssertionError(f"{process.name} ended with {process.popen.returncode}:\n{process.text()[-3000:]}")
            return READY in process.text()

        await until(said, what=f"{process.name} to be ready")

    def close(self) -> None:
        """End every process; one that does not go is killed."""
        for process in self.processes:
            if process.alive:
                process.go_on()
                process.popen.terminate()
        for process in self.processes:
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def open_fleet(
    *, database_url: str, bus_url: str, redis_url: str, folder: Path, **more: Any
) -> AsyncIterator[Fleet]:
    """A fleet without processes yet, on an upgraded database. more: settings, e.g. run_lease="PT5S"."""
    urls = {"database_url": database_url, "bus_url": bus_url, "redis_url": redis_url}
    port = free_port()
    async with open_rig(**urls, folder=folder / "data", port=port) as rig:
        key = await ensure_owner_key(rig.context.database, rig.context.settings)
        assert key is not None
        given = {f"PENSTOCK_{name.upper()}": str(value) for name, value in {**urls, **more, "port": port}.items()}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        fleet = Fleet(rig, {**environment, **given, "PENSTOCK_LOG_LEVEL": "INFO"}, folder, key, port)
        try:
            yield fleet
        finally:
            await asyncio.to_thread(fleet.close)
