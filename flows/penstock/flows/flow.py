"""`@flow`: an ordinary function that can run by itself, on a worker, and in parts again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast, overload

from penstock.flows.calls import invoke, try_async, try_sync
from penstock.flows.context import current_context, local_context
from penstock.flows.errors import FlowDefinitionError, FlowTimeoutError, ParameterError
from penstock.flows.parameters import Parameters
from penstock.flows.retries import RetryDelay, Seconds
from penstock.flows.step import P, R, Step

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,199}\Z")


class Flow(Step[P, R]):
    """A function that Penstock runs. limits: names of the limits that a run passes first; tags: to find it by.

    Called outside of a worker it runs here and now, as plain Python, with its retries and timeout. Called inside
    another flow it is one call of that run, recorded like a task.
    """

    kind = "flow"
    late = FlowTimeoutError

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        retries: int = 0,
        retry_delay: RetryDelay = 0,
        timeout: Seconds | None = None,
        limits: Iterable[str] = (),
        tags: Iterable[str] = (),
    ) -> None:
        super().__init__(fn, name=name, retries=retries, retry_delay=retry_delay, timeout=timeout)
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise FlowDefinitionError(f'flow name {self.name!r}: give letters, digits and dashes, e.g. name="reroute"')
        self.limits = _names(limits, "limits")
        self.tags = _names(tags, "tags")
        self.description = inspect.getdoc(fn) or ""
        self._parameters = Parameters(self.name, fn, self.signature)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        values = self._validate_call(args, kwargs)
        taken, named = self._parameters.arguments(values)
        outer = current_context()
        if outer is not None:
            return cast("R", invoke(self, outer, taken, named))
        context = local_context(self.name, values)
        tried = try_async(self, context, taken, named) if self.is_async else try_sync(self, context, taken, named)
        return cast("R", tried)

    def validate_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: converted, defaults filled in.  Raises ParameterError naming each problem."""
        return self._parameters.validate(given)

    def parameter_schema(self) -> dict[str, Any]:
        """The JSON Schema of the parameters, an object.  Raises FlowDefinitionError where there can be none."""
        return self._parameters.schema()

    def call_body(self, values: Mapping[str, Any]) -> Any:
        """The bare function with validated parameters: for a worker, which does retries, timeout and context itself."""
        args, kwargs = self._parameters.arguments(values)
        return self.fn(*args, **kwargs)

    def _validate_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            given = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ParameterError(self.name, [str(error)]) from None
        return self._parameters.validate(given)


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: RetryDelay = 0,
    timeout: Seconds | None = None,
    limits: Iterable[str] = (),
    tags: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: RetryDelay = 0,
    timeout: Seconds | None = None,
    limits: Iterable[str] = (),
    tags: Iterable[str] = (),
) -> Any:
    """Make a function a flow; with and without arguments, sync and async.

    name: letters, digits, dashes; by default the function's, with dashes for underscores.
    retries: further tries of a failed run, which keep what finished tasks returned.  retry_delay: seconds, a timedelta,
    a list of them, or `exponential(…)`.  timeout: seconds for one try of the run; a worker ends it, in plain Python
    async code is cancelled and sync code fails but goes on in its thread.
    limits: names of limits (files.md) that each run passes first.
    Raises FlowDefinitionError.
    """

    def decorate(fn: Callable[..., Any]) -> Flow[..., Any]:
        return Flow(fn, name=name, retries=retries, retry_delay=retry_delay, timeout=timeout, limits=limits, tags=tags)

    return decorate if fn is None else decorate(fn)


def _names(given: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise FlowDefinitionError(f'{what}={given!r}: give a list, {what}=["{given}"]')
    names = tuple(given)
    for name in names:
        if not isinstance(name, str) or not name:
            raise FlowDefinitionError(f"{what}={list(names)!r}: {name!r} is no name")
    return names
