"""`@task`: a step of a flow whose result is recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, Unpack, cast, overload

from penstock.flows.arguments import spread
from penstock.flows.caching import Cache
from penstock.flows.calls import Call, invoke, name_call
from penstock.flows.context import current_context
from penstock.flows.errors import FlowDefinitionError, TaskTimeoutError
from penstock.flows.futures import FutureList, TaskFuture
from penstock.flows.generators import TaskFrame, iterate, iterate_async
from penstock.flows.hooks import Hook
from penstock.flows.names import LONGEST
from penstock.flows.options import TaskOptions, check_options
from penstock.flows.retries import seconds
from penstock.flows.step import P, R, Step
from penstock.flows.submit import submit

T = TypeVar("T")


class Task(Step[P, R]):
    """A function that a run records: once it has finished in a run, it is not run again in that run.

    Called outside of a run it is the plain function, with its retries and timeout.
    """

    kind = "task"
    late = TaskTimeoutError

    def __init__(self, fn: Callable[P, R], options: Mapping[str, Any]) -> None:
        super().__init__(fn, options)
        if not isinstance(self.name, str) or not 0 < len(self.name) <= LONGEST:
            raise FlowDefinitionError(f"task name {self.name!r}: give a text of 1 to {LONGEST} characters")
        self.cache = _checked_cache(options.get("cache"), self)
        limit = options.get("cache_for")
        self.cache_for = None if limit is None else seconds(limit, "cache_for")
        if options.get("on_rollback") is not None:
            self.on_rollback(options["on_rollback"])
        self.look_over()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        context = current_context()
        if not self.is_generator:
            return cast("R", invoke(self, context, args, kwargs))
        call = name_call(self, context, args, kwargs)  # now: its place among equal calls is that of the code
        items = iterate_async if self.is_async else iterate
        return cast("R", items(lambda: call, _frame))

    @overload
    def submit(self: Task[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[R]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Call it beside the code that goes on: in the flow's task runner, async tasks on the running event loop.

        Futures among the arguments (also inside of lists, tuples, sets, dicts) are waited for first.
        """
        return submit(self, args, kwargs)

    @overload
    def map(self: Task[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> FutureList[T]: ...
    @overload
    def map(self, /, *args: Any, **kwargs: Any) -> FutureList[R]: ...
    def map(self, /, *args: Any, **kwargs: Any) -> FutureList[Any]:
        """Submit one call for each element of the iterables, which have to be equally long.

        Texts, bytes, mappings, single futures and `unmapped(value)` go to every call as they are.  Raises CallError.
        """
        return FutureList(submit(self, *each) for each in spread(self.name, args, kwargs))

    def with_options(self, **options: Unpack[TaskOptions]) -> Task[P, R]:
        """The same task with other options; those not named stay."""
        check_options("task", options, TaskOptions)
        return Task(self.fn, {**self.options, **options})

    def on_rollback(self, hook: Hook) -> Hook:
        """Decorator: have the function called with the Moment of a completed call when the flow fails after all.

        It is a call of its own, recorded in the journal; with retries where it is a task itself.
        """
        if not (inspect.isfunction(hook) or isinstance(hook, Task)):
            raise FlowDefinitionError(f"on_rollback={hook!r}: give a function of one Moment, or such a task")
        self.on_rollback_hook = hook
        self.look_over()
        return hook


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task; with and without arguments, sync and async, generators too.

    name: by default the function's, with dashes for underscores; it is part of what a recorded call is known by.
    run_name: what one call is shown as, "sync-{customer}" or a function of the arguments.  tags: to find it by.
    retries: further tries after a failure.  retry_delay: seconds, a timedelta, a list of them, or `exponential(…)`.
    retry_if: exception classes, or a function of the exception; others are not tried again.
    timeout: seconds for one try. Async code is cancelled; a sync body runs in a thread, which cannot be stopped: the
    task fails at once, the thread goes on until it returns by itself.
    cache: `INPUTS`, `SOURCE`, `by_key(…)` or a sum of them: equal calls of any run share one result.  cache_for: how
    long, seconds or a timedelta (None: for ever).
    serializer: "json", "pickle" or one of your own.  store: where large and cached results are kept (store.py).
    on_running, on_completion, on_failure, on_crash, on_cancel, on_pause: functions of one Moment, or lists of them.
    on_rollback: undoes a completed call when its flow fails; the last call is undone first.
    Raises FlowDefinitionError.
    """
    check_options("task", options, TaskOptions)

    def decorate(fn: Callable[..., Any]) -> Task[..., Any]:
        return Task(fn, options)

    return decorate if fn is None else decorate(fn)


def _frame(call: Call) -> TaskFrame:
    return TaskFrame(call.context)


def _checked_cache(given: object, step: Step[..., Any]) -> Cache | None:
    if given is None:
        return None
    if not isinstance(given, Cache):
        raise FlowDefinitionError(f"cache={given!r}: give INPUTS, SOURCE, by_key(function), or a sum of them")
    if step.is_generator:
        raise FlowDefinitionError(f"{step.qualname} is a generator: its items come one by one and are not cached")
    if unknown := given.left_out - set(step.signature.parameters):
        raise FlowDefinitionError(f"cache of task {step.name!r}: without {sorted(unknown)}, which are no parameters")
    return given
