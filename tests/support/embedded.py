"""Penstock as its users start it first: `penstock up`, one process with a SQLite file and a redis-server of its own."""

from __future__ import annotations

import json
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
import psutil
import sqlalchemy as sa
from tests.support.rig import until

from penstock.services.database import connect
from penstock.services.database.tables import decision


@dataclass
class Up:
    """`penstock up` in a folder, started and ended at will; the state stays."""

    folder: Path
    popen: subprocess.Popen[bytes] | None = None
    redis: list[psutil.Process] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """Where it keeps everything."""
        return self.folder / ".penstock"

    async def start(self) -> None:
        """Returns once every service has begun."""
        (self.data / "instance.json").unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        with (self.folder / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "penstock.services.cli", "up", "--port", "0"]
            self.popen = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

        async def said() -> bool:
            assert self.popen is not None
            assert self.popen.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
            return (self.data / "instance.json").exists()

        await until(said, what="penstock up")
        family = psutil.Process(self.popen.pid).children(recursive=True)
        self.redis = [each for each in family if "redis" in each.name() or "valkey" in each.name()]

    def client(self) -> httpx.AsyncClient:
        """Speaks to the API as the owner."""
        url = json.loads((self.data / "instance.json").read_text())["url"]
        headers = {"Authorization": f"Bearer {(self.data / 'owner.key').read_text().strip()}"}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False)

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the process, and wait for its end and that of its Redis."""
        assert self.popen is not None
        self.popen.send_signal(how)
        self.popen.wait(30)
        psutil.wait_procs(self.redis, timeout=10)

    def kill_redis(self) -> None:
        """SIGKILL to its redis-server alone."""
        assert self.redis
        for process in self.redis:
            process.kill()

    async def decisions(self) -> list[Any]:
        """The rows of the decisions, read beside the running process."""
        database = connect(f"sqlite+aiosqlite:///{self.data / 'state.db'}")
        try:
            async with database.read() as connection:
                return list((await connection.execute(sa.select(decision))).all())
        finally:
            await database.close()


@asynccontextmanager
async def open_up(folder: Path, rules: str) -> AsyncIterator[Up]:
    """One that has begun, with these rules; killed at the end if it still runs."""
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "rules.yaml").write_text(rules)
    up = Up(folder)
    try:
        await up.start()
        yield up
    finally:
        if up.popen is not None and up.popen.poll() is None:
            up.end(signal.SIGKILL)
