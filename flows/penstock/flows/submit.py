"""Calls that are made now and carried out beside the code that made them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import replace
from threading import Semaphore
from typing import Any

from penstock.flows.calls import Call, carry_out, name_call, replayed
from penstock.flows.context import current_context
from penstock.flows.futures import TaskFuture
from penstock.flows.operations import Life, Settled, drive_async
from penstock.flows.runners import ThreadRunner
from penstock.flows.scope import Scope
from penstock.flows.step import Step

_outside = Scope(ThreadRunner(), on_loop=True, ends=False)  # for tasks that are submitted outside of flows


def submit(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskFuture[Any]:
    """Name the call in the order of the code, and have it carried out by the flow's task runner or event loop."""
    context = current_context()
    call = name_call(step, context, args, kwargs)
    if call.journal is not None and (recorded := call.journal.recorded(call.key)) is not None:
        return _ended(call, recorded)
    scope = context.scope if context is not None and context.scope is not None else _outside
    loop = asyncio._get_running_loop() if step.is_async and scope.on_loop else None
    return _in_thread(call, scope) if loop is None else _on_loop(call, scope, loop)


def _in_thread(call: Call, scope: Scope) -> TaskFuture[Any]:
    context = copy_context()
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, lambda f: context.run(_begin, call, scope, f))
    scope.submit(future)
    return future


def _begin(call: Call, scope: Scope, future: TaskFuture[Any]) -> None:
    try:
        life = carry_out(replace(call, elsewhere=scope.elsewhere))
    except BaseException as error:  # handed to whoever asks for the result
        future.fail(error)
    else:
        _go_on(life, future, None if call.step.hooks else scope.unrecorded, None)


def _go_on(life: Life[Any], future: TaskFuture[Any], places: Semaphore | None, error: BaseException | None) -> None:
    """Carry a life on to its end, or until it only waits for the journal: then the thread is free for the next one.

    places: how many may wait so; None: none of this kind, for what follows calls functions of the user's.
    """
    answer = None
    try:
        while True:
            operation = life.send(answer) if error is None else life.throw(error)
            if isinstance(operation, Settled) and _parked(operation.future, life, future, places):
                return
            answer, error = None, None
            try:
                answer = operation.block()
            except BaseException as problem:  # the life decides what follows, whatever it is
                error = problem
    except StopIteration as end:
        future.complete(end.value)
    except BaseException as problem:  # handed to whoever asks for the result
        future.fail(problem)


def _parked(recorded: Future[Any], life: Life[Any], future: TaskFuture[Any], places: Semaphore | None) -> bool:
    if places is None or recorded.done() or not places.acquire(blocking=False):
        return False

    def go_on(_: Future[Any]) -> None:
        places.release()
        _go_on(life, future, None, recorded.exception())

    recorded.add_done_callback(go_on)
    return True


def _on_loop(call: Call, scope: Scope, loop: asyncio.AbstractEventLoop) -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, loop=loop)
    scope.add(future)
    future.follow(loop.create_task(drive_async(carry_out(call))))
    return future


def _ended(call: Call, recorded: bytes) -> TaskFuture[Any]:
    """A call that has been recorded."""
    assert call.journal is not None  # noqa: S101 -- or there would be no record
    life = replayed(call, call.journal, recorded)
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, lambda future: _go_on(life, future, None, None))
    future.run()
    return future
