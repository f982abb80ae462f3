"""The pump: in order, acknowledged late, restarted, never stopped by what a driver does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.fake_bus import FakeBus

from penstock.events.bus import DEAD_LETTER, EVENTS
from penstock.events.event import Event
from penstock.events.sensors import Reading, Refused
from penstock.services.sensors.pump import Pump


class ScriptedDriver:
    """Yields what a test says, then fails, or waits."""

    def __init__(self, *runs: list[Reading | Refused], fails: bool = True) -> None:
        self._runs, self._fails = list(runs), fails
        self.calls = 0
        self.closed = 0

    async def readings(self) -> AsyncGenerator[Reading | Refused, None]:
        self.calls += 1
        try:
            for reading in self._runs.pop(0) if self._runs else []:
                yield reading
            if self._fails and self._runs:
                raise ConnectionError("the line is dead")
            await asyncio.Event().wait()
        finally:
            self.closed += 1


class Log:
    """What was acknowledged, and how much the bus had by then."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus
        self.acknowledged: list[tuple[int, int]] = []

    def reading(self, number: int, type_: str = "a.b", data: Any = None) -> Reading:
        return Reading(Event(type=type_, id=str(number), data=data), self._note(number))

    def refused(self, number: int) -> Refused:
        return Refused("RenderError: no", "mqtt/x", b"\xff", self._note(number))

    def _note(self, number: int) -> Callable[[], Any]:
        async def acknowledge() -> None:
            self.acknowledged.append((number, len(self._bus.records(EVENTS)) + len(self._bus.records(DEAD_LETTER))))

        return acknowledge


@asynccontextmanager
async def pumping(bus: FakeBus, driver: ScriptedDriver) -> AsyncIterator[None]:
    await bus.ensure_topic(EVENTS, 1)
    await bus.ensure_topic(DEAD_LETTER, 1)
    task = asyncio.create_task(Pump(("default", "plant"), driver, await bus.publisher()).run())
    try:
        async with asyncio.timeout(20):
            yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def ids(bus: FakeBus) -> list[str]:
    return [json.loads(record.value)["id"] for record in bus.records(EVENTS)]


async def test_readings_are_published_in_order_and_acknowledged_afterwards() -> None:
    bus = FakeBus(partitions=1)
    log = Log(bus)
    async with pumping(bus, ScriptedDriver([log.reading(number) for number in range(50)])):
        await until(lambda: len(log.acknowledged) == 50)
    assert ids(bus) == [str(number) for number in range(50)]
    assert all(on_bus > number for number, on_bus in log.acknowledged)


async def test_nothing_is_acknowledged_while_the_bus_is_away_and_nothing_is_lost() -> None:
    bus = FakeBus(partitions=1)
    log = Log(bus)
    bus.away = True
    async with pumping(bus, ScriptedDriver([log.reading(number) for number in range(3)])):
        await asyncio.wait_for(until(lambda: bool(bus.topics)), 5)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert not log.acknowledged
        bus.away = False
        await until(lambda: len(log.acknowledged) == 3)
    assert ids(bus) == ["0", "1", "2"]


async def test_a_driver_that_fails_is_started_again() -> None:
    bus = FakeBus(partitions=1)
    log = Log(bus)
    driver = ScriptedDriver([log.reading(1)], [log.reading(2)], [log.reading(3)])
    async with pumping(bus, driver):
        await until(lambda: len(log.acknowledged) == 3)
    assert ids(bus) == ["1", "2", "3"]
    assert driver.calls == driver.closed == 3


async def test_what_cannot_be_an_event_is_dead_lettered_and_acknowledged() -> None:
    bus = FakeBus(partitions=1)
    log = Log(bus)
    readings: list[Reading | Refused] = [
        log.reading(1),
        log.refused(2),
        log.reading(3, "penstock.run.completed"),
        log.reading(4, data="x" * (1 << 20)),
        log.reading(5, data=float("nan")),
        log.reading(6),
    ]
    async with pumping(bus, ScriptedDriver(readings)):
        await until(lambda: len(log.acknowledged) == 6)
    assert ids(bus) == ["1", "6"]
    letters = [json.loads(record.value) for record in bus.records(DEAD_LETTER)]
    assert [letter["reason"].split(":")[0] for letter in letters] == ["RenderError"] + ["InvalidEventError"] * 3
    assert letters[0]["origin"]["topic"] == "mqtt/x"
