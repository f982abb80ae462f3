"""The SDK for sensors: a driver turns what it observes into events; the supervisor does the rest.

    class Clock:
        async def readings(self):
            while True:
                await asyncio.sleep(1)
                yield Reading(Event(type="clock.ticked", source="/sensors/clock"))

The supervisor publishes readings in order, and calls `acknowledge` only once the bus has them: a driver whose source
can send again what was not acknowledged (a broker, a queue, a file with a position) loses nothing. It may then deliver
twice: give the same observation the same (source, id), and the second one changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.events.event import Event

Acknowledge = Callable[[], Awaitable[None]]


async def nothing_to_acknowledge() -> None:
    """For sources that keep nothing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One observation."""

    event: Event
    acknowledge: Acknowledge = nothing_to_acknowledge


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that cannot become an event: it goes to the dead-letter topic, and is acknowledged then.

    origin: where it came from ("mqtt/plant/7/temp").  value: as it came.
    """

    reason: str
    origin: str
    value: bytes
    acknowledge: Acknowledge = nothing_to_acknowledge


class Driver(Protocol):
    """One source of readings."""

    def readings(self) -> AsyncGenerator[Reading | Refused, None]:
        """Connect, and yield until closed. An exception ends it; it is called again after a pause that grows."""
