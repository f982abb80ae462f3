"""Group commit for publishers: what comes while a round is under way goes out together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.errors import BusError

Addressed = tuple[TopicPartition, Outgoing]
Round = dict[TopicPartition, list[Outgoing]]
Failures = dict[TopicPartition, BusError]


@dataclass(slots=True, eq=False)
class _Call:
    records: Sequence[Addressed]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gatherer:
    """Sends rounds one after the other, so that nothing overtakes; any number of tasks may `publish` at once."""

    def __init__(self, send: Callable[[Round], Awaitable[Failures]], *, limit: int) -> None:
        """send: appends a round in order and says which partitions failed.  limit: records in a round, about."""
        self._send, self._limit = send, limit
        self._waiting: list[_Call] = []
        self._worker: asyncio.Task[None] | None = None

    async def publish(self, records: Sequence[Addressed]) -> None:
        """Returns once all are acknowledged.  Raises the BusError of the first partition that failed."""
        call = _Call(records)
        self._waiting.append(call)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        await call.done

    async def drain(self) -> None:
        """Return once nothing is under way."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while self._waiting:
            calls = self._next_calls()
            try:
                failures = await self._send(_by_partition(calls))
            except BusError as error:
                failures = {where: error for call in calls for where, _ in call.records}
            except BaseException as error:  # a bug, or the loop's end: whoever waits must hear of it
                for call in calls:
                    _fail(call, error)
                raise
            for call in calls:
                _settle(call, failures)

    def _next_calls(self) -> list[_Call]:
        size = taken = 0
        while taken < len(self._waiting) and (taken == 0 or size < self._limit):
            size += len(self._waiting[taken].records)
            taken += 1
        calls, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return calls


def _by_partition(calls: Sequence[_Call]) -> Round:
    grouped: Round = {}
    for call in calls:
        for where, record in call.records:
            grouped.setdefault(where, []).append(record)
    return grouped


def _settle(call: _Call, failures: Failures) -> None:
    failed = next((failures[where] for where, _ in call.records if where in failures), None) if failures else None
    if failed is not None:
        _fail(call, failed)
    elif not call.done.done():
        call.done.set_result(None)


def _fail(call: _Call, error: BaseException) -> None:
    if not call.done.done():
        call.done.set_exception(error)
