"""The notifier's loop: woken by penstock.notifications, it claims due deliveries, sends them and records the outcome.

Each delivery is sent once, but for one case: a crash, or a stop that outlasts the lease, between the moment at which a
request's bytes leave and our record of the answer. The repeat then carries the same client message id.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from penstock.automations import environment_lookup
from penstock.events.bus import NOTIFICATIONS
from penstock.services import hints
from penstock.services.backoff import Backoff
from penstock.services.cancellation import check_cancelled
from penstock.services.context import Context
from penstock.services.database import StaleEpochError, unavailable
from penstock.services.deliveries import Delivery, Message, claim, next_due, put_back, update
from penstock.services.limits import Limits, LimitsUnavailableError
from penstock.services.messaging import Messaging
from penstock.services.notifier.outcome import record_failure, record_success
from penstock.services.notifier.sender import ParkedError, Revealed, Sender, read_message
from penstock.services.notifier.sending import SEND_WITHIN, LeaseTooShortError, RefusedError, RetryError, Span

T = TypeVar("T")

GROUP = "penstock.notifier"
_SENDING = 16  # requests at once
_IN_HAND = 64  # claimed rows at once: those being sent, waited for and recorded
_LOW = 32  # rows in hand at which more are claimed, so that claims come in batches
_SWEEP = 1.0  # seconds
_AWAY = Backoff(base=timedelta(milliseconds=200), cap=timedelta(seconds=2))

_log = structlog.get_logger()


class _Wake(msgspec.Struct):
    """A record on penstock.notifications; unknown fields are ignored."""

    v: int
    delivery: str
    namespace: str = "default"


class NotifierService:
    """One notifier process; any number share the deliveries of a namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        self._limits = Limits(context.redis, context.settings.namespace)
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._told = asyncio.Event()  # facts and outbox rows were written
        self._stopping = False

    async def run(self, started: Callable[[], None]) -> None:
        """See Service. Stops by finishing what is being sent and giving back the rest."""
        self._stopping = False
        self._slots = asyncio.Semaphore(_SENDING)
        settings = self._context.settings
        urls = {"slack_url": settings.slack_base_url, "twilio_url": settings.twilio_base_url}
        span = Span.within(settings.delivery_lease)
        self._sender = Sender(self._context.rulebook, self._limits, span=span, **urls)
        messaging = Messaging(
            self._context.settings.bus_url,
            self._context.bus,
            instance=self._context.instance,
            namespace=self._namespace,
        )
        messaging.on(NOTIFICATIONS, GROUP, self._woken)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(messaging, started))
                group.create_task(self._hint())
                group.create_task(self._work())
        finally:
            self._stopping = True
            await messaging.stop()
            await self._finish()
            await self._sender.close()

    async def _listen(self, messaging: Messaging, started: Callable[[], None]) -> None:
        await messaging.start()
        started()

    async def _woken(self, value: bytes) -> None:
        wake = msgspec.json.decode(value, type=_Wake)
        if wake.namespace == self._namespace:
            self._context.hints.wake(hints.DELIVERIES)

    async def _hint(self) -> None:
        """One hint for all that was written since the last one."""
        while True:
            await self._told.wait()
            self._told.clear()
            await self._context.hints.give(hints.OUTBOX, hints.FACTS)
            check_cancelled()

    async def _work(self) -> None:
        failures = 0
        while True:
            try:
                await self._sweep()
                failures = 0
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                failures += 1
                _log.warning("notifier.database_away", error=str(error))
                await asyncio.sleep(_AWAY.pause(failures).total_seconds())

    async def _sweep(self) -> None:
        """Claim what is due and begin it; if nothing is, wait for a sign or the next due time."""
        database, settings = self._context.database, self._context.settings
        claimed = await claim(
            database,
            namespace=self._namespace,
            owner=self._context.instance,
            lease=settings.delivery_lease,
            limit=_IN_HAND - len(self._in_hand),
            but=self._in_hand,
        )
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._in_hand[delivery.id] = task
            task.add_done_callback(partial(self._done, delivery.id))
        if not claimed:
            wait = await next_due(database, namespace=self._namespace)
            pause = _SWEEP if wait is None else min(_SWEEP, wait.total_seconds())
            # What is due already is in other hands, or in ours from an earlier claim.
            await self._context.hints.wait(hints.DELIVERIES, max(pause, 0.05))
        while len(self._in_hand) > _LOW:
            await asyncio.wait(self._in_hand.values(), return_when=asyncio.FIRST_COMPLETED)

    def _done(self, delivery_id: str, _: asyncio.Task[None]) -> None:
        self._in_hand.pop(delivery_id, None)

    async def _deliver(self, delivery: Delivery) -> None:
        """One claimed row, from here to its outcome; never raises."""
        secrets = Revealed(environment_lookup(os.environ))
        try:
            await self._try(delivery, secrets)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of our own must not take the other deliveries with it
            _log.error("delivery.abandoned", delivery=delivery.id, error=secrets.masked(repr(error)))

    async def _try(self, delivery: Delivery, secrets: Revealed) -> None:
        message: Message | None = None
        try:
            message = read_message(delivery)
            async with self._slots:
                if self._stopping:
                    raise LeaseTooShortError("this process is stopping")  # noqa: TRY301 -- handled as one of its kind
                answer = await self._sender.send(delivery, message, secrets, self._keeper(delivery, secrets))
        except LeaseTooShortError:
            await self._give_back(delivery, timedelta(0))
        except ParkedError as error:
            await self._give_back(delivery, error.wait)
        except RefusedError as error:
            await self._fail(delivery, secrets.masked(str(error)))
        except RetryError as error:
            await self._again(delivery, message or Message(""), secrets.masked(str(error)), error.after)
        except StaleEpochError:
            _log.warning("delivery.stale", delivery=delivery.id, epoch=delivery.epoch)
        except Exception as error:  # whatever else goes wrong is tried again, and told
            if unavailable(error):
                await self._give_back(delivery, timedelta(seconds=1))
                return
            _log.error("delivery.error", delivery=delivery.id, error=secrets.masked(repr(error)))
            await self._again(delivery, message or Message(""), secrets.masked(repr(error)), timedelta(0))
        else:
            await self._succeed(delivery, secrets.masked(answer))

    async def _succeed(self, delivery: Delivery, answer: Mapping[str, Any]) -> None:
        database = self._context.database
        if await self._persist(lambda: database.write(lambda tx: record_success(tx, delivery, answer))):
            self._told.set()
            _log.info("delivery.delivered", delivery=delivery.id, channel=delivery.channel)
        else:
            _log.warning("delivery.stale", delivery=delivery.id, epoch=delivery.epoch, lost="its success")

    async def _again(self, delivery: Delivery, message: Message, error: str, after: timedelta) -> None:
        """Try it again after a pause, or give it up when its tries are used up."""
        tries = delivery.attempts + 1
        if tries >= message.retry.attempts:
            await self._fail(delivery, f"{error} (given up after {tries} tries)")
            return
        pause = timedelta(microseconds=message.retry.pause(tries)) / 2 * (1 + random.random())
        wait = max(pause, after)
        _log.warning("delivery.retrying", delivery=delivery.id, error=error, seconds=wait.total_seconds())
        await self._give_back(delivery, wait, attempts=tries, error=error)

    async def _give_back(self, delivery: Delivery, wait: timedelta, **changed: Any) -> None:
        await self._persist(lambda: put_back(self._context.database, delivery, wait=wait, **changed))
        self._context.hints.wake(hints.DELIVERIES)  # it may be due before what the loop waits for

    async def _fail(self, delivery: Delivery, error: str) -> None:
        database = self._context.database
        if await self._persist(lambda: database.write(lambda tx: record_failure(tx, delivery, error))):
            self._told.set()
            _log.error("delivery.failed", delivery=delivery.id, channel=delivery.channel, error=error)
        try:
            await self._sender.forget(delivery)
        except LimitsUnavailableError as away:
            _log.info("delivery.place_kept", delivery=delivery.id, error=str(away))  # it is forgotten in time

    def _keeper(self, delivery: Delivery, secrets: Revealed) -> Callable[[Any], Awaitable[None]]:
        async def keep(progress: Any) -> None:
            stored = msgspec.json.encode(secrets.masked(progress)).decode()
            database = self._context.database
            if not await self._persist(lambda: database.write(lambda tx: update(tx, delivery, response=stored))):
                raise StaleEpochError(f"delivery {delivery.id} was claimed by another notifier meanwhile")

        return keep

    async def _persist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write until the database takes it: what was sent must not be forgotten because the database restarts."""
        failures = 0
        while True:
            try:
                return await write()
            except Exception as error:  # `unavailable` tells which ones to wait for
                if not unavailable(error):
                    raise
                failures += 1
                _log.warning("notifier.database_away", error=str(error))
            await asyncio.sleep(_AWAY.pause(failures).total_seconds())

    async def _finish(self) -> None:
        tasks = list(self._in_hand.values())
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=SEND_WITHIN + 2)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
