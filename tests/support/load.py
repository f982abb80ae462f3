"""Load on the doors of Penstock, which remembers what was acknowledged and what was not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
from tests.support.rig import until

from penstock.events import AsyncEmitter, Event
from penstock.events.errors import BusError

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
Send = Callable[[Sequence[Event]], Awaitable[str]]


def events(count: int, source: str, *, type_: str = "load.made", first: int = 0) -> list[Event]:
    """`count` events over many keys."""
    return [
        Event(id=f"{source}-{number}", source=f"/{source}", type=type_, subject=f"s{number % 97}", data={"n": number})
        for number in range(first, first + count)
    ]


def batch_of(events: Sequence[Event]) -> bytes:
    """The body of a batch request."""
    return b"[" + b",".join(event.to_json() for event in events) + b"]"


def over_http(client: httpx.AsyncClient) -> Send:
    """Send a batch through the API; what went wrong, or ""."""

    async def send(batch: Sequence[Event]) -> str:
        try:
            answer = await client.post("/events", content=batch_of(batch), headers=BATCH)
        except httpx.HTTPError as error:
            return repr(error)
        return "" if answer.status_code == 202 else f"{answer.status_code} {answer.text}"

    return send


def over_the_bus(emitter: AsyncEmitter) -> Send:
    """Send a batch with `emit`; what went wrong, or ""."""

    async def send(batch: Sequence[Event]) -> str:
        try:
            await emitter.emit(batch)
        except BusError as error:
            return repr(error)
        return ""

    return send


@dataclass
class Load:
    """Sends batch after batch until stopped, and sends none a second time."""

    source: str
    send: Send
    size: int = 5  # events a batch
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        """Until `stopping`; at most 50 batches a second."""
        number = 0
        while not self.stopping:
            batch = events(self.size, self.source, first=number)
            number += self.size
            pause = asyncio.create_task(asyncio.sleep(0.02))
            error = await self.send(batch)
            (self.refused if error else self.acknowledged).update(event.id for event in batch)
            if error:
                self.errors.append(error)
            await pause

    async def more(self, count: int = 100) -> None:
        """Until that many more are acknowledged than now."""
        wanted = len(self.acknowledged) + count

        async def enough() -> bool:
            return len(self.acknowledged) >= wanted

        await until(enough, what=f"{self.source} to have {count} more acknowledged; errors: {self.errors[-2:]}")


async def post_all(client: httpx.AsyncClient, batches: Sequence[Sequence[Event]], *, at_once: int = 4) -> None:
    """Post every batch; returns with the last 202.  Fails where one is refused."""
    waiting = list(reversed(batches))

    async def post() -> None:
        while waiting:
            answer = await client.post("/events", content=batch_of(waiting.pop()), headers=BATCH)
            assert answer.status_code == 202, answer.text

    await asyncio.gather(*(post() for _ in range(at_once)))
