"""This machine's processor, memory and disk, through psutil: `host.cpu`, `host.memory`, `host.disk`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from typing import Any

import psutil

from penstock.automations.resources import HostSensor
from penstock.events.event import Event, now
from penstock.events.instants import SECOND
from penstock.events.sensors import Reading, Refused


class HostDriver:
    """Measures at a steady pace; a moment that was slept through is left out."""

    def __init__(self, sensor: HostSensor) -> None:
        self._every = sensor.every / SECOND
        self._source = f"/sensors/{sensor.name}"
        self._host = socket.gethostname()

    async def readings(self) -> AsyncGenerator[Reading | Refused, None]:
        """See Driver. The first ones come one interval after the start: cpu load is a difference."""
        loop = asyncio.get_running_loop()
        psutil.cpu_percent(interval=None)
        due = loop.time()
        while True:
            due = max(due + self._every, loop.time())
            await asyncio.sleep(due - loop.time())
            moment = now()
            for type_, data in (("host.cpu", cpu()), ("host.memory", memory()), ("host.disk", disk())):
                yield Reading(Event(type=type_, source=self._source, subject=self._host, time=moment, data=data))


def cpu() -> dict[str, Any]:
    """percent: of all processors together since the last call.  load: averages over 1, 5 and 15 minutes."""
    load = [round(each, 2) for each in psutil.getloadavg()]
    return {"percent": psutil.cpu_percent(interval=None), "count": psutil.cpu_count() or 1, "load": load}


def memory() -> dict[str, Any]:
    """Bytes, and percent in use."""
    found = psutil.virtual_memory()
    return {"percent": found.percent, "total": found.total, "available": found.available, "used": found.used}


def disk(path: str = os.sep) -> dict[str, Any]:
    """Bytes, and percent in use, of the file system that holds `path`."""
    found = psutil.disk_usage(path)
    return {"percent": found.percent, "total": found.total, "free": found.free, "used": found.used, "path": path}
