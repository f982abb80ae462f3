"""One publisher for all requests: what arrives while the bus acknowledges one group is the next group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from penstock.events.bus import Bus, Outgoing, Publisher
from penstock.events.errors import BufferFullError, BusError, BusUnavailableError

GROUP_RECORDS = 1_000
GROUP_BYTES = 4 << 20
WAITING_BYTES = 64 << 20  # of all that waits; above it requests are refused at once
PATIENCE = 15.0  # seconds that one request waits for its acknowledgement

_log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    records: Sequence[Outgoing]
    size: int
    done: asyncio.Future[None]


class GroupPublisher:
    """Gathers concurrent publishes into few calls of the bus, in order of arrival."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._publisher: Publisher | None = None
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._in_flight = 0
        self._flusher: asyncio.Task[None] | None = None

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Returns once all are acknowledged.

        Raises BusError if any was not, BufferFullError where too much waits already. A caller that gives up waiting
        may see its records arrive all the same: it sends them again, and their identity tells that they are the same.
        """
        size = sum(len(record.value) for record in records)
        if self._bytes + size > WAITING_BYTES:
            raise BufferFullError(f"{self._bytes} bytes wait for the bus already; slow down")
        waiting = _Waiting(records, size, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._bytes += size
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        try:
            async with asyncio.timeout(PATIENCE):
                await waiting.done
        except TimeoutError:
            raise BusUnavailableError(f"no acknowledgement within {PATIENCE:.0f} s") from None

    @property
    def waiting(self) -> int:
        """How many requests wait for their acknowledgement."""
        return len(self._queue) + self._in_flight

    async def close(self) -> None:
        """Wait for what is under way, then let go of the bus."""
        if self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher], timeout=5)
        if self._publisher is not None:
            await self._publisher.close()
            self._publisher = None

    async def _flush(self) -> None:
        while self._queue:
            group = self._take()
            self._in_flight = len(group)
            error = await self._send([record for waiting in group for record in waiting.records])
            for waiting in group:
                self._bytes -= waiting.size
                _settle(waiting.done, error)
            self._in_flight = 0

    def _take(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        records, size = len(group[0].records), group[0].size
        while self._queue:
            records += len(self._queue[0].records)
            size += self._queue[0].size
            if records > GROUP_RECORDS or size > GROUP_BYTES:
                break
            group.append(self._queue.popleft())
        return group

    async def _send(self, records: Sequence[Outgoing]) -> BusError | None:
        try:
            if self._publisher is None:
                self._publisher = await self._bus.publisher()
            await self._publisher.publish(records)
        except BusError as error:
            return error
        except Exception as error:  # the flusher must outlive a defect of one group, and its callers be told
            _log.exception("publish.failed", records=len(records))
            return BusError(f"not published: {error}")
        return None


def _settle(done: asyncio.Future[None], error: BusError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
        return
    done.set_exception(error)
    done.exception()  # its caller may have gone: that is no "exception was never retrieved"
