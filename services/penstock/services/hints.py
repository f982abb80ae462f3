"""Hints: "there is something for you in the database", through Redis pub/sub.

A hint carries nothing and promises nothing. Whoever waits for one also looks by itself every so often, so that a lost
hint delays and never loses.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from penstock.services.cancellation import check_cancelled

OUTBOX = "outbox"  # rows in the lanes of the services
FACTS = "facts"  # facts for firings
EVENTS = "events"  # rows of the outbox that somebody waits for on the bus
RUNS = "runs"  # due runs
DELIVERIES = "deliveries"  # due notifications
TIMERS = "timers"  # a timer of the stream's clock is about to be due
REVISION = "revision"  # a new revision of the rules
FLOWS = "flows"  # a worker registered its flows
WAITS = "waits"  # a run waits for an event from now on
DEPLOYMENTS = "deployments"  # schedules of deployments have changed
PLACES = "places"  # a run waits for a place of its deployment, or there is one
ASKED = "asked"  # somebody wants something of a run that a worker holds, or took it away

_log = structlog.get_logger()


class Hints:
    """Give hints with `give`, wait for one with `wait`; `run` must be running for hints to arrive."""

    def __init__(self, redis: Redis, prefix: str = "penstock:hint:") -> None:
        self._redis, self._prefix = redis, prefix
        self._events: dict[str, asyncio.Event] = {}
        self._wanted: set[str] = set()  # what this process waits for; it need not hear of anything else
        self._listening: PubSub | None = None

    async def give(self, *names: str) -> None:
        """Wake whoever waits for these names, in any process. A Redis that is down is not an error."""
        for name in names:
            self._event(name).set()
            with contextlib.suppress(RedisError, OSError):
                await self._redis.publish(self._prefix + name, b"")
            check_cancelled()

    def wake(self, name: str) -> None:
        """Wake the waiter in this process alone."""
        self._event(name).set()

    async def wait(self, name: str, timeout: float) -> bool:
        """Wait for a hint, `timeout` seconds at most.  Returns whether there was one.

        One waiter a name and process: a hint wakes it once.
        """
        event = self._event(name)
        await self._want(name)
        try:
            async with asyncio.timeout(timeout):  # wait_for can swallow a cancellation before Python 3.12
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True

    async def run(self) -> None:
        """Receive hints until cancelled; reconnects by itself."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                _log.info("hints.reconnecting", error=str(error))
                await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._prefix)
            heard: set[str] = set()
            while new := self._wanted - heard:  # more may be wanted while these are asked for
                await pubsub.subscribe(*(self._prefix + name for name in sorted(new)))
                heard |= new
            self._listening = pubsub
            try:
                while True:
                    message = await pubsub.get_message(timeout=1.0)
                    check_cancelled()
                    if message is not None:
                        self._event(message["channel"].decode().removeprefix(self._prefix)).set()
            finally:
                self._listening = None

    async def _want(self, name: str) -> None:
        """Listen for it from now on."""
        if name in self._wanted:
            return
        self._wanted.add(name)
        if self._listening is not None:
            with contextlib.suppress(RedisError, OSError):  # then it listens anew
                await self._listening.subscribe(self._prefix + name)
            check_cancelled()

    def _event(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())
