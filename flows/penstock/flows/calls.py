"""How one call of a flow or task is carried out: named, replayed or tried, timed, recorded.

Timeouts. Async code is cancelled by asyncio. A sync body with a timeout runs in a thread of its own; when its time is
up the call fails at once, but no thread can be stopped from outside: the body goes on, unheard, until it returns.
A worker replaces a child that has such a thread; a plain program keeps it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from penstock.events.instants import Instant
from penstock.flows.context import RunContext, entered, get_logger
from penstock.flows.errors import FlowTimeoutError, TaskTimeoutError
from penstock.flows.journal import Journal, TaskCall
from penstock.flows.results import encode_result, is_plain
from penstock.flows.states import State
from penstock.flows.step import Step

_abandoned: list[threading.Thread] = []


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has been made and named, and is not yet carried out."""

    step: Step[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: RunContext
    outer: RunContext
    journal: Journal
    started: Instant

    def record(self, state: State, result: bytes, error: str | None = None) -> Future[None]:
        """Hand the finished call to the journal."""
        call = TaskCall(
            self.context.parent, self.outer.parent, self.step.name, state, result, self.started, now(), error
        )
        return self.journal.record(call)

    def record_failure(self, error: Exception) -> Future[None]:
        """Hand the failed call to the journal."""
        timed_out = isinstance(error, TaskTimeoutError | FlowTimeoutError)
        return self.record(State.TIMED_OUT if timed_out else State.FAILED, b"null", describe(error))

    def encode(self, value: object) -> bytes:
        """The result as the journal keeps it.  Raises TaskResultError."""
        body = encode_result(value, self.step.name)
        if not self.step.warned and not is_plain(value) and not self.step.result_type.known:
            self.step.warned = True
            get_logger().warning(
                f"{self.step.kind} {self.step.name!r} returns {type(value).__name__} and has no return annotation:"
                " a resumed run gets it back as plain JSON. Annotate the function's result"
            )
        return body


def invoke(step: Step[..., Any], context: RunContext | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry out a call made in `context`; gives the result, or for an async step a coroutine.

    Without a journal (plain Python, no server) the body is only tried, timed and retried.
    """
    if context is None or context.journal is None:
        inner = _inside(step, context, "") if context else None
        return try_async(step, inner, args, kwargs) if step.is_async else try_sync(step, inner, args, kwargs)
    call = _named(step, context, context.journal, args, kwargs)
    recorded = context.journal.recorded(call.context.parent)
    if step.is_async:
        return _replayed(step, recorded) if recorded is not None else _carry_out_async(call)
    return step.result_type.decode(recorded) if recorded is not None else _carry_out_sync(call)


def try_sync(step: Step[..., Any], context: RunContext | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of a sync step inside `context`, as often as its policy allows."""
    if context is not None:
        with entered(context):
            return try_sync(step, None, args, kwargs)
    for retry in range(1, step.policy.retries + 1):
        try:
            return _once_sync(step, args, kwargs)
        except Exception as error:  # whatever the user's code raises is a reason to try again
            time.sleep(_wait_before(step, retry, error))
    return _once_sync(step, args, kwargs)


async def try_async(
    step: Step[..., Any], context: RunContext | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the body of an async step inside `context`, as often as its policy allows."""
    if context is not None:
        with entered(context):
            return await try_async(step, None, args, kwargs)
    for retry in range(1, step.policy.retries + 1):
        try:
            return await _once_async(step, args, kwargs)
        except Exception as error:  # whatever the user's code raises is a reason to try again
            await asyncio.sleep(_wait_before(step, retry, error))
    return await _once_async(step, args, kwargs)


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
        _abandoned.append(thread)
        raise
    if not done:
        _abandoned.append(thread)
        raise too_late(timeout)
    return result.result()


def abandoned_threads() -> int:
    """How many bodies go on in threads although their time was up."""
    _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
    return len(_abandoned)


def describe(error: BaseException) -> str:
    """An error in one line."""
    try:
        text = " ".join(str(error).split())[:2_000]
    except Exception:  # an exception class of the user's that cannot be printed is still one with a name
        text = "(its text cannot be made)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def now() -> Instant:
    """The instant on this machine's clock."""
    return time.time_ns() // 1_000


def _named(
    step: Step[..., Any], context: RunContext, journal: Journal, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call:
    key = journal.name_call(context.parent, step.name, step.bind(args, kwargs))
    return Call(step, args, kwargs, _inside(step, context, key), context, journal, now())


def _inside(step: Step[..., Any], context: RunContext, key: str) -> RunContext:
    if step.kind == "flow":
        return context.inside(step.name, None, key)
    return context.inside(context.flow, step.name, key)


def _carry_out_sync(call: Call) -> Any:
    try:
        value = try_sync(call.step, call.context, call.args, call.kwargs)
        body = call.encode(value)
    except Exception as error:  # recorded whatever it is, and raised again
        call.record_failure(error).result()
        raise
    call.record(State.COMPLETED, body).result()
    return value


async def _carry_out_async(call: Call) -> Any:
    try:
        value = await try_async(call.step, call.context, call.args, call.kwargs)
        body = call.encode(value)
    except Exception as error:  # recorded whatever it is, and raised again
        await asyncio.wrap_future(call.record_failure(error))
        raise
    await asyncio.wrap_future(call.record(State.COMPLETED, body))
    return value


async def _replayed(step: Step[..., Any], recorded: bytes) -> Any:
    return step.result_type.decode(recorded)


def _once_sync(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if step.policy.timeout is None:
        return step.fn(*args, **kwargs)
    return run_in_thread(lambda: step.fn(*args, **kwargs), step.policy.timeout, step.timed_out)


async def _once_async(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    body: Awaitable[Any] = step.fn(*args, **kwargs)
    if step.policy.timeout is None:
        return await body
    try:
        async with asyncio.timeout(step.policy.timeout) as scope:
            return await body
    except TimeoutError:
        if scope.expired():
            raise step.timed_out(step.policy.timeout) from None
        raise


def _wait_before(step: Step[..., Any], retry: int, error: Exception) -> float:
    seconds = step.policy.wait(retry, random.random())
    get_logger().warning(
        f"{step.kind} {step.name!r} failed ({describe(error)}); retry {retry} of {step.policy.retries} in {seconds:g} s"
    )
    return seconds


def _settle(result: Future[Any], body: Callable[[], Any]) -> None:
    try:
        result.set_result(body())
    except BaseException as error:  # handed to the caller, who raises it
        result.set_exception(error)
