"""From one driver to the bus: in order, acknowledged late, restarted when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from penstock.events.bus import Outgoing, Publisher
from penstock.events.codec import outgoing
from penstock.events.errors import BusError, InvalidEventError
from penstock.events.sensors import Driver, Reading, Refused
from penstock.services.backoff import Backoff
from penstock.services.dead_letters import Origin, dead_letter

_WAITING = 500  # readings between driver and bus; above it the driver is held up
_RESTART = Backoff()
_log = structlog.get_logger()

Observed = Reading | Refused


class Pump:
    """Runs one driver until cancelled."""

    def __init__(self, key: tuple[str, str], driver: Driver, publisher: Publisher) -> None:
        self._namespace, self._name = key
        self._driver, self._publisher = driver, publisher
        self._failures = 0

    async def run(self) -> None:
        """Restart the driver, after a pause that grows, whenever it ends."""
        while True:
            try:
                await self._pump()
                reason = "it ended"
            except Exception as error:  # a driver is anybody's code: whatever it raises, the others go on
                reason = repr(error)
            self._failures += 1
            pause = _RESTART.pause(self._failures).total_seconds()
            _log.warning("sensor.failed", sensor=self._name, error=reason, restart_in_seconds=round(pause, 2))
            await asyncio.sleep(pause)

    async def _pump(self) -> None:
        queue: asyncio.Queue[Observed] = asyncio.Queue(_WAITING)
        reader = asyncio.create_task(self._read(queue))
        try:
            while batch := await _next_batch(queue, reader):
                await self._deliver(batch)
                self._failures = 0
            await reader
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reader], timeout=5)

    async def _read(self, queue: asyncio.Queue[Observed]) -> None:
        async with contextlib.aclosing(self._driver.readings()) as readings:
            async for reading in readings:
                await queue.put(reading)

    async def _deliver(self, batch: Sequence[Observed]) -> None:
        """Publish, then acknowledge. A bus that is away is waited for: nothing is acknowledged, nothing dropped."""
        records = [self._record(observed) for observed in batch]
        failures = 0
        while True:
            try:
                await self._publisher.publish(records)
                break
            except BusError as error:
                failures += 1
                pause = _RESTART.pause(failures).total_seconds()
                _log.warning("sensor.waiting_for_bus", sensor=self._name, error=str(error), waiting=len(records))
                await asyncio.sleep(pause)
        for observed in batch:
            await observed.acknowledge()

    def _record(self, observed: Observed) -> Outgoing:
        if isinstance(observed, Reading):
            try:
                return outgoing(observed.event)
            except InvalidEventError as error:
                _log.warning("sensor.refused", sensor=self._name, error=str(error))
                return self._letter(f"InvalidEventError: {error}", observed.event.source, _shown(observed))
        _log.warning("sensor.refused", sensor=self._name, origin=observed.origin, error=observed.reason)
        return self._letter(observed.reason, observed.origin, observed.value)

    def _letter(self, reason: str, origin: str, value: bytes) -> Outgoing:
        return dead_letter(reason, Origin(origin), value=value, namespace=self._namespace)


async def _next_batch(queue: asyncio.Queue[Observed], reader: asyncio.Task[None]) -> list[Observed]:
    """What waits, at least one; empty once the reader has ended and nothing is left."""
    getter = asyncio.create_task(queue.get())
    try:
        await asyncio.wait({getter, reader}, return_when=asyncio.FIRST_COMPLETED)
        if not getter.done():
            return []
        batch = [getter.result()]
    finally:
        getter.cancel()
    while not queue.empty():
        batch.append(queue.get_nowait())
    return batch


def _shown(reading: Reading) -> bytes:
    """An event that cannot be written as JSON, as far as it can be shown."""
    return repr(reading.event).encode("utf-8", "backslashreplace")
