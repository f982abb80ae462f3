"""The dead-letter middleware: a record that cannot be handled is retried, told, and passed by.

FastStream's own policies either skip it in silence or retry it for ever at once (with NACK on Kafka the partition
stands still; on Redis the entry stays pending and nobody sees it again). This one tries `backoff.attempts` times,
then writes the record to `penstock.dead-letter`, and only then acknowledges it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import structlog
from faststream import BaseMiddleware, StreamMessage

from penstock.events.bus import Bus, Publisher
from penstock.events.errors import BusError
from penstock.services.backoff import Backoff
from penstock.services.dead_letters import Origin, dead_letter, stack_of

_log = structlog.get_logger()
_UNSENT = Backoff(attempts=2**31)  # a dead letter that the bus does not take is sent again until it does


@dataclass(frozen=True, slots=True)
class Arrived:
    """One record as the middleware and the handlers see it, from either bus."""

    topic: str  # without the bus's prefix
    partition: int
    offset: int
    group: str  # the consumer group that got it
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class DeadLetters:
    """Makes one middleware a message, as FastStream asks; holds what they share."""

    def __init__(self, bus: Bus, backoff: Backoff, namespace: str, rest: float = 0.0) -> None:
        """rest: seconds between acknowledgements, where one of them acknowledges all that came before (Kafka)."""
        self._bus, self._backoff, self._namespace, self._rest = bus, backoff, namespace, rest
        self._acknowledged: dict[str, float] = {}
        self._publisher: Publisher | None = None

    def __call__(self, msg: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        """A middleware for one message."""
        return _DeadLetterMiddleware(msg, context=context, letters=self)

    async def close(self) -> None:
        """Let go of the publisher; safe to call twice."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.close()

    async def pass_through(self, arrived: Arrived, handle: Callable[[], Awaitable[Any]]) -> bool:
        """Returns once the record was handled (true: at the first try), or lies on the dead-letter topic."""
        failures = 0
        while True:
            try:
                await handle()
                return failures == 0
            except Exception as error:  # whatever a handler raises must not stop the line
                failures += 1
                _log.warning("message.failed", **_named(arrived), failures=failures, error=repr(error))
                if self._backoff.exhausted(failures):
                    await self._bury(arrived, error)
                    return False
            await asyncio.sleep(self._backoff.pause(failures).total_seconds())

    def rests(self, topic: str) -> bool:
        """Whether the last acknowledgement for a reader of this topic is recent enough to do without one."""
        now = time.monotonic()
        if now - self._acknowledged.get(topic, -self._rest) < self._rest:
            return True
        self._acknowledged[topic] = now
        return False

    async def _bury(self, arrived: Arrived, error: Exception) -> None:
        letter = dead_letter(
            f"{type(error).__name__}: {error}",
            Origin(arrived.topic, arrived.partition, arrived.offset, arrived.group),
            value=arrived.value,
            key=arrived.key,
            headers=arrived.headers,
            stack=stack_of(error),
            namespace=self._namespace,
        )
        failures = 0
        while True:
            try:
                self._publisher = self._publisher or await self._bus.publisher()
                await self._publisher.publish([letter])
            except BusError as refusal:
                failures += 1
                _log.warning("message.dead_letter_unsent", **_named(arrived), error=str(refusal))
                await asyncio.sleep(_UNSENT.pause(failures).total_seconds())
            else:
                _log.error("message.dead_lettered", **_named(arrived), reason=repr(error))
                return


class _DeadLetterMiddleware(BaseMiddleware[Any, Any]):
    """Handles, retries or buries one message, then acknowledges it."""

    def __init__(self, msg: Any, /, *, context: Any, letters: DeadLetters) -> None:
        super().__init__(msg, context=context)
        self._letters = letters

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        arrived = cast("Arrived", msg.body)  # our parsers see to that
        smoothly = await self._letters.pass_through(arrived, lambda: call_next(msg))
        if smoothly and self._letters.rests(arrived.topic):
            return  # acknowledged with a later one; after a crash it comes again, which every handler expects
        try:
            await msg.ack()
        except Exception as error:  # any client's error: the record comes again, which every handler expects
            _log.warning("message.unacknowledged", **_named(arrived), error=repr(error))


def _named(arrived: Arrived) -> dict[str, Any]:
    return {"topic": arrived.topic, "partition": arrived.partition, "offset": arrived.offset}
