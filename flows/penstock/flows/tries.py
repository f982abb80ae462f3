"""One try of a body, with its timeout, in its context; and a hook, in that context.

Timeouts. Async code is cancelled by asyncio. A sync body with a timeout runs in a thread of its own; when its time is
up the call fails at once, but no thread can be stopped from outside: the body goes on, unheard, until it returns.
A worker replaces a child that has such a thread; a plain program keeps it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from penstock.events.instants import Instant
from penstock.flows.context import RunContext, entered
from penstock.flows.step import Step

_abandoned: list[threading.Thread] = []


@dataclass(frozen=True, slots=True)
class Body:
    """One try of a step's function.

    context: what the function is in; None: no run at all.  elsewhere: runs the function, with its arguments, in
    another process or on another machine; None: here.
    """

    step: Step[..., Any]
    context: RunContext | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    elsewhere: Callable[..., Any] | None = None

    def block(self) -> Any:
        if self.step.is_async:  # called by code that has no event loop
            return asyncio.run(self.unfold())
        if self.context is None:
            return self._block()
        with entered(self.context):
            return self._block()

    async def unfold(self) -> Any:
        if not self.step.is_async:
            return self.block()
        if self.context is None:
            return await self._unfold()
        with entered(self.context):
            return await self._unfold()

    def _block(self) -> Any:
        timeout = self.step.policy.timeout
        if timeout is None:
            return self._call()
        return run_in_thread(self._call, timeout, self.step.timed_out)

    def _call(self) -> Any:
        if self.elsewhere is not None:
            return self.elsewhere(self.step, self.args, self.kwargs)
        return self.step.collecting(*self.args, **self.kwargs)

    async def _unfold(self) -> Any:
        timeout = self.step.policy.timeout
        if timeout is None:
            return await self.step.collecting(*self.args, **self.kwargs)
        try:
            async with asyncio.timeout(timeout) as time_limit:
                return await self.step.collecting(*self.args, **self.kwargs)
        except TimeoutError:
            if time_limit.expired():
                raise self.step.timed_out(timeout) from None
            raise


@dataclass(frozen=True, slots=True)
class Told:
    """A function of the user's is called with one value. One that is async can only be called by async code."""

    function: Callable[[Any], Any]
    value: object
    context: RunContext | None

    def block(self) -> Any:
        if self.context is None:
            return self.function(self.value)
        with entered(self.context):
            return self.function(self.value)

    async def unfold(self) -> Any:
        answer = self.block()
        if not inspect.isawaitable(answer):
            return answer
        if self.context is None:
            return await answer
        with entered(self.context):
            return await answer


def run_in_thread(body: Callable[[], Any], timeout: float, too_late: Callable[[float], Exception]) -> Any:
    """The result of `body`, run in a thread of its own in this context.

    Raises too_late(timeout) when that many seconds are over.
    """
    result: Future[Any] = Future()
    thread = threading.Thread(target=copy_context().run, args=(_settle, result, body), daemon=True)
    thread.start()
    try:
        done, _ = wait([result], timeout)
    except BaseException:
        abandon([thread])
        raise
    if not done:
        abandon([thread])
        raise too_late(timeout)
    return result.result()


def abandon(threads: Iterable[threading.Thread]) -> None:
    """Count threads among those that nobody waits for any more."""
    _abandoned.extend(threads)


def abandoned_threads() -> int:
    """How many bodies go on in threads although nobody waits for them any more."""
    _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
    return len(_abandoned)


def describe(error: BaseException) -> str:
    """An error in one line."""
    try:
        text = sendable(" ".join(str(error).split())[:2_000])
    except Exception:  # an exception class of the user's that cannot be printed is still one with a name
        text = "(its text cannot be made)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def sendable(text: str) -> str:
    """Text that has a UTF-8 form: lone surrogates (from file names, say) become question marks."""
    return text.encode("utf-8", "replace").decode()


def now() -> Instant:
    """The instant on this machine's clock."""
    return time.time_ns() // 1_000


def _settle(result: Future[Any], body: Callable[[], Any]) -> None:
    try:
        result.set_result(body())
    except BaseException as error:  # handed to the caller, who raises it
        result.set_exception(error)
