"""The sensors' process: a pump for each sensor of the rules that this process owns.

Several processes share the sensors: each sensor is owned by the holder of its lease. An owner that cannot renew stops
its driver before the lease ends, so that no two of them read at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from penstock.automations import environment_lookup
from penstock.automations.resources import HostSensor, MqttSensor
from penstock.events import bus
from penstock.events.bus import Publisher
from penstock.services.context import Context
from penstock.services.database import unavailable
from penstock.services.sensors.drivers import Sensor, make_driver
from penstock.services.sensors.leases import LEASE, Leases
from penstock.services.sensors.pump import Pump

Key = tuple[str, str]  # namespace, name
_LOOK = LEASE / 4  # seconds between two looks at the leases
_log = structlog.get_logger()


@dataclass(slots=True)
class _Running:
    """A sensor that this process reads."""

    definition: Sensor
    task: asyncio.Task[None]


class SensorsService:
    """Follows the rules: starts, stops and restarts drivers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._leases = Leases(context.database, context.instance)
        self._running: dict[Key, _Running] = {}
        self._publisher: Publisher | None = None
        self.revision: int | None = None  # of the rules that it follows

    async def run(self, started: Callable[[], None]) -> None:
        """See Service."""
        await self._context.bus.ensure_topic(bus.EVENTS, self._context.settings.event_partitions)
        await self._context.bus.ensure_topic(bus.DEAD_LETTER, 1)
        self._publisher = await self._context.bus.publisher()
        try:
            while True:
                if await self._look():
                    started()
                    started = _already
                await self._wait()
        finally:
            await asyncio.shield(self._finish())

    async def _look(self) -> bool:
        """Start and stop what has to be; returns whether the database could be asked."""
        try:
            if self._context.rulebook.current.id == 0:
                await self._context.rulebook.refresh()
            revision = self._context.rulebook.current
            wanted = revision.rules.sensors
            await self._stop({key for key, running in self._running.items() if wanted.get(key) != running.definition})
            held = await self._leases.take(set(wanted))
        except Exception as error:
            if not unavailable(error):
                raise
            _log.warning("sensors.waiting_for_database", error=str(error))
            await self._stop(self._running.keys() - self._leases.still_held())
            return False
        await self._stop(self._running.keys() - held)
        for key in held - self._running.keys():
            self._start(key, wanted[key])
        self.revision = revision.id
        return True

    def _start(self, key: Key, definition: HostSensor | MqttSensor) -> None:
        assert self._publisher is not None  # noqa: S101 -- `run` opens it first
        driver = make_driver(key, definition, environment_lookup(os.environ))
        pump = Pump(key, driver, self._publisher)
        self._running[key] = _Running(definition, asyncio.create_task(pump.run(), name=f"sensor {'/'.join(key)}"))
        _log.info("sensor.started", sensor=key[1], driver=definition.driver)

    async def _stop(self, keys: set[Key]) -> None:
        stopping = [self._running.pop(key).task for key in keys]
        for task in stopping:
            task.cancel()
        if stopping:
            await asyncio.wait(stopping, timeout=10)
            _log.info("sensors.stopped", sensors=sorted(name for _, name in keys))

    async def _wait(self) -> None:
        """Until the rules change, or the leases want to be looked at; a pump never ends by itself."""
        since = self._context.rulebook.current.id
        for running in self._running.values():
            if running.task.done():
                running.task.result()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self._context.rulebook.changed(since)

    async def _finish(self) -> None:
        await self._stop(set(self._running))
        await self._leases.give_back()
        if self._publisher is not None:
            await self._publisher.close()


def _already() -> None:
    """It was told that we have started."""
