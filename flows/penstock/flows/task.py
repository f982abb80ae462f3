"""`@task`: a step of a flow whose result is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, overload

from penstock.flows.calls import invoke
from penstock.flows.context import current_context
from penstock.flows.errors import FlowDefinitionError, TaskTimeoutError
from penstock.flows.retries import RetryDelay, Seconds
from penstock.flows.step import P, R, Step


class Task(Step[P, R]):
    """A function that a run records: once it has finished in a run, it is not run again in that run.

    Called outside of a run it is the plain function, with its retries and timeout.
    """

    kind = "task"
    late = TaskTimeoutError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", invoke(self, current_context(), args, kwargs))


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: RetryDelay = 0,
    timeout: Seconds | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: RetryDelay = 0,
    timeout: Seconds | None = None,
) -> Any:
    """Make a function a task; with and without arguments, sync and async.

    name: by default the function's, with dashes for underscores; it is part of what a recorded call is known by.
    retries: further tries after a failure.  retry_delay: seconds, a timedelta, a list of them, or `exponential(…)`.
    timeout: seconds for one try. Async code is cancelled; a sync body runs in a thread, which cannot be stopped: the
    task fails at once, the thread goes on until it returns by itself.
    Raises FlowDefinitionError.
    """

    def decorate(fn: Callable[..., Any]) -> Task[..., Any]:
        made: Task[..., Any] = Task(fn, name=name, retries=retries, retry_delay=retry_delay, timeout=timeout)
        if not isinstance(made.name, str) or not 0 < len(made.name) <= 200:
            raise FlowDefinitionError(f"task name {made.name!r}: give a text of 1 to 200 characters")
        return made

    return decorate if fn is None else decorate(fn)
