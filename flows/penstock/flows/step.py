"""What flows and tasks have in common: a function with a name, a policy, hooks and a way to keep its results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, update_wrapper
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast

from penstock.flows.caching import Cache
from penstock.flows.errors import FlowDefinitionError, FlowTimeoutError, TaskTimeoutError
from penstock.flows.hooks import STATES, Hook, check_hooks, collect_hooks
from penstock.flows.names import check_run_name, checked_names, default_name, fill_in
from penstock.flows.results import ResultType
from penstock.flows.retries import policy
from penstock.flows.serializers import find_serializer
from penstock.flows.sources import register, source_digest
from penstock.flows.states import State
from penstock.flows.store import ResultStore, open_store

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A decorated function. name: as runs, journal and log know it; is_async: whether a call has to be awaited."""

    kind: ClassVar[str]
    late: ClassVar[type[TaskTimeoutError | FlowTimeoutError]]  # raised by a try that takes too long
    cache: Cache | None = None
    cache_for: float | None = None  # seconds
    on_rollback_hook: Hook | None = None

    def __init__(self, fn: Callable[P, R], options: Mapping[str, Any]) -> None:
        _check_function(fn, self.kind)
        self.fn = fn
        self.options = options
        self.name = default_name(fn) if options.get("name") is None else options["name"]
        self.is_generator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self.collecting = _collecting(fn) if self.is_generator else fn
        self.tags = checked_names(options.get("tags", ()), "tags")
        self.policy = policy(*(options.get(key, default) for key, default in _POLICY.items()))
        self.run_name = options.get("run_name")
        self.serializer = find_serializer(options.get("serializer", "json"))
        self.hooks = collect_hooks(options, self.is_async)
        self.warned = False  # said once that its results need a return annotation
        if self.run_name is not None:
            check_run_name(self.run_name, self.signature)
        if self.is_generator and (self.policy.retries or self.policy.timeout) and self.kind == "task":
            raise FlowDefinitionError(
                f"{fn.__qualname__} is a generator: retries and timeout belong to the tasks that it calls, since what"
                " it has yielded cannot be taken back"
            )
        update_wrapper(cast("Callable[..., Any]", self), fn)
        register(self.name, fn)
        self.is_bare = False

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the function."""
        return inspect.signature(self.fn)

    @cached_property
    def result_type(self) -> ResultType:
        """How a recorded result becomes what the function returned; of a generator, the list of its items."""
        return ResultType(self.fn)

    @cached_property
    def source(self) -> str:
        """Digest of the function's code."""
        return source_digest(self.fn)

    def look_over(self) -> None:
        """Note whether a call has nothing around it (asked for every call that is not journalled)."""
        policy = self.policy
        self.is_bare = not (
            self.is_generator or self.hooks or self.on_rollback_hook or self.cache or policy.retries or policy.timeout
        )

    @property
    def module(self) -> str:
        """The module that holds the function."""
        return self.fn.__module__

    @property
    def qualname(self) -> str:
        """Where in its module the function stands."""
        return self.fn.__qualname__

    @property
    def place(self) -> str:
        """File and line, for messages."""
        code = inspect.unwrap(self.fn).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults included.  Raises TypeError, as the function itself would."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def label(self, arguments: Callable[[], Mapping[str, Any]]) -> str:
        """What `run_name` makes of the arguments; "" without one."""
        return "" if self.run_name is None else fill_in(self.run_name, arguments())

    def result_store(self) -> ResultStore:
        """Where its large and cached results are kept.  Raises ResultStoreError."""
        return open_store(self.options.get("store"))

    def timed_out(self, timeout: float) -> TaskTimeoutError | FlowTimeoutError:
        """The error of a try that took longer than `timeout` seconds."""
        return self.late(self.name, timeout)

    def on_running(self, hook: Hook) -> Hook:
        """Decorator: have the function called when a call begins."""
        return self._hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Decorator: have the function called when a call has completed."""
        return self._hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Decorator: have the function called when a call has failed or timed out, and is not tried again."""
        return self._hook("on_failure", hook)

    def on_crash(self, hook: Hook) -> Hook:
        """Decorator: have the function called when a call ends by what is no error: sys.exit, KeyboardInterrupt."""
        return self._hook("on_crash", hook)

    def on_cancel(self, hook: Hook) -> Hook:
        """Decorator: have the function called when a call is cancelled."""
        return self._hook("on_cancel", hook)

    def on_pause(self, hook: Hook) -> Hook:
        """Decorator: have the function called when the run leaves its process to wait."""
        return self._hook("on_pause", hook)

    def _hook(self, name: str, hook: Hook) -> Hook:
        state = STATES[name]
        self.hooks[state] = (*self.hooks.get(state, ()), *check_hooks(name, hook, self.is_async))
        self.look_over()
        return hook

    def hooks_for(self, state: State) -> tuple[Hook, ...]:
        """Who is told when a call gets into this state."""
        return self.hooks.get(State.FAILED if state is State.TIMED_OUT else state, ())

    def __reduce__(self) -> str:
        """Pickled by name, as functions are: for pools of processes."""
        return self.qualname

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} at {self.place}>"


_POLICY = {"retries": 0, "retry_delay": 0, "timeout": None, "retry_if": None}


def rebuild(kind: type[Step[..., Any]], fn: Callable[..., Any], options: Mapping[str, Any]) -> Step[..., Any]:
    """A step that has travelled by value."""
    return kind(fn, options)


def _collecting(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A generator's function as one that returns the list of its items."""

    def collect(*args: Any, **kwargs: Any) -> list[Any]:
        return list(fn(*args, **kwargs))

    async def collect_async(*args: Any, **kwargs: Any) -> list[Any]:
        return [each async for each in fn(*args, **kwargs)]

    return collect_async if inspect.isasyncgenfunction(fn) else collect


def _check_function(fn: object, kind: str) -> None:
    if not inspect.isfunction(fn):
        raise FlowDefinitionError(
            f'@{kind} takes a function, not {fn!r}; write options by name, e.g. @{kind}(name="…", retries=3)'
        )
