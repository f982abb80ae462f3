"""Calls that are made now and carried out beside the code that made them."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any

from penstock.flows.calls import Call, carry_out, name_call, replayed
from penstock.flows.context import current_context
from penstock.flows.futures import TaskFuture
from penstock.flows.operations import drive, drive_async
from penstock.flows.runners import ThreadRunner
from penstock.flows.scope import Scope
from penstock.flows.step import Step

_outside = Scope(ThreadRunner())  # for tasks that are submitted outside of flows


def submit(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskFuture[Any]:
    """Name the call in the order of the code, and have it carried out by the flow's task runner or event loop."""
    context = current_context()
    call = name_call(step, context, args, kwargs)
    if call.journal is not None and (recorded := call.journal.recorded(call.key)) is not None:
        return _ended(call, recorded)
    scope = context.scope if context is not None and context.scope is not None else _outside
    loop = asyncio._get_running_loop() if step.is_async else None
    return _in_thread(call, scope) if loop is None else _on_loop(call, scope, loop)


def _in_thread(call: Call, scope: Scope) -> TaskFuture[Any]:
    work = partial(copy_context().run, _drive_here, call, scope)
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, work)
    scope.submit(future)
    return future


def _drive_here(call: Call, scope: Scope) -> Any:
    return drive(carry_out(replace(call, elsewhere=scope.elsewhere)))


def _on_loop(call: Call, scope: Scope, loop: asyncio.AbstractEventLoop) -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, loop=loop)
    scope.add(future)
    future.follow(loop.create_task(drive_async(carry_out(call))))
    return future


def _ended(call: Call, recorded: bytes) -> TaskFuture[Any]:
    """A call that has been recorded."""
    assert call.journal is not None  # noqa: S101 -- or there would be no record
    work = partial(drive, replayed(call, call.journal, recorded))
    future: TaskFuture[Any] = TaskFuture(call.step.name, call.key, work)
    future.run()
    return future
