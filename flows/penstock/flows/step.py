"""What flows and tasks have in common: a function with a name, a policy and a result type."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast

from penstock.flows.errors import FlowDefinitionError, FlowTimeoutError, TaskTimeoutError
from penstock.flows.results import ResultType
from penstock.flows.retries import RetryDelay, Seconds, policy

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A decorated function. name: as runs, journal and log know it; is_async: whether a call has to be awaited."""

    kind: ClassVar[str]
    late: ClassVar[type[TaskTimeoutError | FlowTimeoutError]]  # raised by a try that takes too long

    def __init__(
        self, fn: Callable[P, R], *, name: str | None, retries: int, retry_delay: RetryDelay, timeout: Seconds | None
    ) -> None:
        _check_function(fn, self.kind)
        self.fn = fn
        self.name = default_name(fn) if name is None else name
        self.policy = policy(retries, retry_delay, timeout)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.warned = False  # said once that its results need a return annotation
        update_wrapper(cast("Callable[..., Any]", self), fn)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the function."""
        return inspect.signature(self.fn)

    @cached_property
    def result_type(self) -> ResultType:
        """How a recorded result becomes what the function returned."""
        return ResultType(self.fn)

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

    def timed_out(self, timeout: float) -> TaskTimeoutError | FlowTimeoutError:
        """The error of a try that took longer than `timeout` seconds."""
        return self.late(self.name, timeout)

    def __reduce__(self) -> str:
        """Pickled by name, as functions are: for pools of processes."""
        return self.qualname

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} at {self.place}>"


def default_name(fn: Callable[..., Any]) -> str:
    """The function's name with dashes for underscores."""
    return fn.__name__.strip("_").replace("_", "-")


def _check_function(fn: object, kind: str) -> None:
    if not inspect.isfunction(fn):
        raise FlowDefinitionError(
            f'@{kind} takes a function, not {fn!r}; write options by name, e.g. @{kind}(name="…", retries=3)'
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise FlowDefinitionError(f"{fn.__qualname__} is a generator; a {kind} returns its result, a list for instance")
