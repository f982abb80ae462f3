"""`emit`: events out of any program, acknowledged before it returns.

    emit("order.placed", {"total": 42}, subject="order/7")
    emit([Event(type="a.happened"), Event(type="b.happened")])
    await aemit("order.placed", subject="order/7")

An error means: take the events as not sent. To emit the same Event again is safe: (source, id) names it.
`emit` and `aemit` share one connection a process, served by a thread of its own; `Emitter` and `AsyncEmitter` are for
programs that want to choose target, timeout or lifetime.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 -- for its place among what is done at the end: see below
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any, Self, overload

from penstock.events.bus import Outgoing
from penstock.events.codec import outgoing
from penstock.events.errors import BufferFullError, BusUnavailableError, InvalidEventError
from penstock.events.event import Event, from_mapping, now
from penstock.events.ids import new_id
from penstock.events.targets import Target, choose_target
from penstock.events.transports import Transport, open_transport

TIMEOUT = 15.0  # seconds for an acknowledgement, connecting included
MAX_BUFFER = 32 << 20  # bytes that may wait for their acknowledgement
_GRACE = 2.0  # seconds that a thread waits longer than what it waits for
_NOTHING: Any = object()  # "no data" is not "data: null"

Emitted = str | Event | Iterable[Event]


class AsyncEmitter:
    """Emits from one event loop.

    async with AsyncEmitter("kafka://localhost:9092") as emitter:
        await emitter.emit("order.placed", {"total": 42}, subject="order/7")
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        source: str | None = None,
        timeout: float = TIMEOUT,
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        """url, key: see `penstock.events.targets`.  source: of events that are given as a type.

        timeout: seconds.  max_buffer: bytes that may wait for their acknowledgement.  Raises NoTargetError.
        """
        self._target: Target = choose_target(url, key=key)
        self._source, self._timeout, self._max_buffer = source, timeout, max_buffer
        self._transport: Transport | None = None
        self._waiting = 0  # bytes

    @overload
    async def emit(self, event: str, /, data: Any = ..., *, subject: str | None = None, **attributes: Any) -> Event: ...
    @overload
    async def emit(self, event: Event, /) -> Event: ...
    @overload
    async def emit(self, event: Iterable[Event], /) -> list[Event]: ...
    async def emit(
        self, event: Emitted, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any
    ) -> Event | list[Event]:
        """Send; returns what was sent once it is acknowledged.

        Raises InvalidEventError (nothing was sent), BufferFullError (nothing was sent), BusUnavailableError, BusError.
        """
        events, records = prepare(event, data, subject, attributes, source=self._source)
        await self.send(records)
        return events[0] if isinstance(event, str | Event) else events

    async def close(self) -> None:
        """Let go of the connection; safe to call twice."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.close()

    async def send(self, records: list[Outgoing]) -> None:
        """Send what `prepare` made; see `emit`."""
        size = sum(len(record.value) for record in records)
        if self._waiting and self._waiting + size > self._max_buffer:
            raise BufferFullError(
                f"{self._waiting} bytes wait for their acknowledgement already, and {size} more would pass"
                f" {self._max_buffer}; nothing was sent. Slow down, or raise max_buffer"
            )
        if not records:
            return
        self._waiting += size
        try:
            if self._transport is None:
                self._transport = open_transport(self._target)
            await self._transport.send(records, self._timeout)
        finally:
            self._waiting -= size


class Emitter:
    """Emits from any thread; its connection lives on a thread of its own. Usable on both sides of a fork.

    with Emitter() as emitter:
        emitter.emit("order.placed", {"total": 42}, subject="order/7")
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        source: str | None = None,
        timeout: float = TIMEOUT,
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        """As AsyncEmitter's."""
        self._make: Callable[[], AsyncEmitter] = lambda: AsyncEmitter(
            url, key=key, source=source, timeout=timeout, max_buffer=max_buffer
        )
        self._make()  # tell of a missing target now
        self._source, self._timeout = source, timeout
        self._closed = False
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._in_flight: set[Future[None]] = set()
        _open.add(self)

    @overload
    def emit(self, event: str, /, data: Any = ..., *, subject: str | None = None, **attributes: Any) -> Event: ...
    @overload
    def emit(self, event: Event, /) -> Event: ...
    @overload
    def emit(self, event: Iterable[Event], /) -> list[Event]: ...
    def emit(
        self, event: Emitted, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any
    ) -> Event | list[Event]:
        """As AsyncEmitter.emit; blocks until the acknowledgement, `timeout` seconds at most."""
        return self._emit(event, data, subject, attributes)

    def submit(self, records: list[Outgoing]) -> Future[None]:
        """Send what `prepare` made; the future ends with the acknowledgement."""
        with self._lock:
            if self._closed:
                raise BusUnavailableError("this emitter is closed; open another one")
            if self._line is None:
                self._line = _Line(self._make())
            future = asyncio.run_coroutine_threadsafe(self._line.emitter.send(records), self._line.loop)
            self._in_flight.add(future)
        future.add_done_callback(self._in_flight.discard)
        return future

    def close(self) -> None:
        """Wait for what is in flight, then let go of the connection; safe to call twice."""
        with self._lock:
            self._closed = True
            line, self._line = self._line, None
            in_flight = list(self._in_flight)
        if line is not None:
            wait(in_flight, self._timeout)
            line.close()

    def _emit(self, event: Emitted, data: Any, subject: str | None, attributes: dict[str, Any]) -> Event | list[Event]:
        events, records = prepare(event, data, subject, attributes, source=self._source)
        future = self.submit(records)
        try:
            future.result(self._timeout + _GRACE)
        except FutureTimeoutError:
            future.cancel()
            raise BusUnavailableError(f"no acknowledgement within {self._timeout:g} s; take it as not sent") from None
        return events[0] if isinstance(event, str | Event) else events

    def _after_fork(self) -> None:
        """In the child neither the thread nor its locks are of use; it opens a connection of its own."""
        _left_behind.append(self._line)  # kept alive: to end the parent's objects here would write to its sockets
        self._lock, self._line, self._in_flight = threading.Lock(), None, set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Line:
    """An event loop on a thread, with the emitter that lives on it."""

    def __init__(self, emitter: AsyncEmitter) -> None:
        self.loop, self.emitter = asyncio.new_event_loop(), emitter
        self._thread = threading.Thread(target=self._serve, name="penstock-emit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        closing = asyncio.run_coroutine_threadsafe(self.emitter.close(), self.loop)
        with contextlib.suppress(FutureTimeoutError):
            closing.result(_GRACE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_GRACE)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


def prepare(
    event: Emitted, data: Any, subject: str | None, attributes: dict[str, Any], *, source: str | None = None
) -> tuple[list[Event], list[Outgoing]]:
    """The events to send, dated now where they have no time, and their records.  Raises InvalidEventError."""
    if isinstance(event, str):
        events = [_made(event, data, subject, attributes, source)]
    elif data is not _NOTHING or subject is not None or attributes:
        raise InvalidEventError("an Event is complete: put data and attributes into it, not beside it")
    elif isinstance(event, Event):
        events = [event]
    else:
        events = list(event)
        for index, each in enumerate(events):
            if not isinstance(each, Event):
                raise InvalidEventError(f"{type(each).__name__} is no Event", index=index)
    dated = [each if each.time is not None else each.model_copy(update={"time": now()}) for each in events]
    return dated, [_record(each, index, len(dated)) for index, each in enumerate(dated)]


def _made(type_: str, data: Any, subject: str | None, attributes: dict[str, Any], source: str | None) -> Event:
    mapping = {"id": new_id(), "source": source or Event.model_fields["source"].default, "type": type_, **attributes}
    if data is not _NOTHING:
        mapping["data"] = data
    if subject is not None:
        mapping["subject"] = subject
    return from_mapping(mapping)


def _record(event: Event, index: int, of: int) -> Outgoing:
    try:
        return outgoing(event)
    except InvalidEventError as error:
        if of == 1:
            raise
        raise InvalidEventError(error.reason, field=error.field, index=index) from None


# --- one for the whole process --------------------------------------------------------------------------------------

_open: weakref.WeakSet[Emitter] = weakref.WeakSet()
_left_behind: list[object] = []
_default: Emitter | None = None
_default_lock = threading.Lock()


def _shared() -> Emitter:
    global _default
    with _default_lock:
        if _default is None:
            _default = Emitter()
        return _default


@overload
def emit(event: str, /, data: Any = ..., *, subject: str | None = None, **attributes: Any) -> Event: ...
@overload
def emit(event: Event, /) -> Event: ...
@overload
def emit(event: Iterable[Event], /) -> list[Event]: ...
def emit(
    event: Emitted, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any
) -> Event | list[Event]:
    """Send a type with its data, an Event, or several; returns what was sent once it is acknowledged.

    Where to: see `penstock.events.targets`.  attributes: of CloudEvents (`id`, `source`, `time`, …) and extensions.
    Raises InvalidEventError, NoTargetError, BufferFullError (nothing was sent); BusUnavailableError, BusError (take it
    as not sent) within some 15 seconds.
    """
    return _shared()._emit(event, data, subject, attributes)


@overload
async def aemit(event: str, /, data: Any = ..., *, subject: str | None = None, **attributes: Any) -> Event: ...
@overload
async def aemit(event: Event, /) -> Event: ...
@overload
async def aemit(event: Iterable[Event], /) -> list[Event]: ...
async def aemit(
    event: Emitted, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any
) -> Event | list[Event]:
    """`emit` for coroutines: waits without blocking the event loop."""
    events, records = prepare(event, data, subject, attributes)
    await asyncio.wrap_future(_shared().submit(records))
    return events[0] if isinstance(event, str | Event) else events


def close() -> None:
    """End the connection that `emit` and `aemit` share; the next call opens another one."""
    global _default
    with _default_lock:
        emitter, _default = _default, None
    if emitter is not None:
        emitter.close()


def _at_exit() -> None:
    for emitter in list(_open):
        emitter.close()


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for emitter in list(_open):
        emitter._after_fork()


# Before the executors are shut down, not after, as `atexit` is: a connection that is just being made needs one to look
# up its host. (They are shut down in reverse order of registering, so theirs must come first: hence its import above.)
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
