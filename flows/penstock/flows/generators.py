"""Calls of generators: items come as they are made; what is recorded, once the last one has come, is their list.

A generator that is not exhausted is not recorded: a resumed run makes it again. Its items stay in memory until then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from penstock.flows.calls import Call, completed, ended, packed, replayed, tell
from penstock.flows.context import RunContext, entered
from penstock.flows.operations import Life, drive, drive_async
from penstock.flows.states import State

_END: Any = object()


class Frame(Protocol):
    """What surrounds the body: for a task nothing, for a flow its scope."""

    def open(self) -> RunContext | None:
        """The context of the body."""

    def settle(self) -> Life[None]:
        """The last item has come."""

    def stop(self, error: BaseException) -> Life[None]:
        """The body has raised."""

    def undo(self, error: BaseException) -> Life[None]:
        """It is the end of the call."""

    def drop(self) -> None:
        """Nobody takes items any more."""


class TaskFrame:
    """Nothing but the context."""

    def __init__(self, context: RunContext | None) -> None:
        self._context = context

    def open(self) -> RunContext | None:
        return self._context

    def settle(self) -> Life[None]:
        yield from ()

    def stop(self, error: BaseException) -> Life[None]:
        yield from ()

    def undo(self, error: BaseException) -> Life[None]:
        yield from ()

    def drop(self) -> None:
        pass


def iterate(make: Callable[[], Call], frame: Callable[[Call], Frame]) -> Iterator[Any]:
    """The items of a call, which begins when the first one is asked for."""
    call = make()
    if (recorded := _recorded(call)) is not None:
        yield from drive(_replayed(call, recorded))
        return
    around = frame(call)
    context = around.open()
    items: list[Any] = []
    drive(tell(call, State.RUNNING))
    source = iter(call.step.fn(*call.args, **call.kwargs))
    try:
        while (item := _next(source, context)) is not _END:
            if call.journal is not None:
                items.append(item)
            yield item
        record = drive(_settled(call, around, items))
    except GeneratorExit:
        around.drop()
        raise
    except BaseException as error:  # recorded whatever it is, and raised again
        drive(_failed(call, around, error))
        raise
    drive(completed(call, items, record))


async def iterate_async(make: Callable[[], Call], frame: Callable[[Call], Frame]) -> AsyncIterator[Any]:
    """As `iterate`, for async generators."""
    call = make()
    if (recorded := _recorded(call)) is not None:
        for item in await drive_async(_replayed(call, recorded)):
            yield item
        return
    around = frame(call)
    context = around.open()
    items: list[Any] = []
    await drive_async(tell(call, State.RUNNING))
    source = call.step.fn(*call.args, **call.kwargs)
    try:
        while (item := await _anext(source, context)) is not _END:
            if call.journal is not None:
                items.append(item)
            yield item
        record = await drive_async(_settled(call, around, items))
    except GeneratorExit:
        around.drop()
        raise
    except BaseException as error:  # recorded whatever it is, and raised again
        await drive_async(_failed(call, around, error))
        raise
    await drive_async(completed(call, items, record))


def _recorded(call: Call) -> bytes | None:
    return None if call.journal is None else call.journal.recorded(call.key)


def _replayed(call: Call, recorded: bytes) -> Life[list[Any]]:
    assert call.journal is not None  # noqa: S101 -- or there would be no record
    items: list[Any] = yield from replayed(call, call.journal, recorded)
    return items


def _settled(call: Call, around: Frame, items: list[Any]) -> Life[bytes]:
    yield from around.settle()
    return (yield from packed(call, items))


def _failed(call: Call, around: Frame, error: BaseException) -> Life[None]:
    yield from around.stop(error)
    yield from around.undo(error)
    yield from ended(call, error)


def _next(source: Iterator[Any], context: RunContext | None) -> Any:
    if context is None:
        return next(source, _END)
    with entered(context):
        return next(source, _END)


async def _anext(source: AsyncIterator[Any], context: RunContext | None) -> Any:
    if context is None:
        return await anext(source, _END)
    with entered(context):
        return await anext(source, _END)
