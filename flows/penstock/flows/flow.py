"""`@flow`: an ordinary function that can run by itself, on a worker, and in parts again."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack, cast, get_args, overload

from penstock.flows.calls import Call, arrived, is_given_future, name_call, tell
from penstock.flows.context import RunContext, current_context, local_context
from penstock.flows.deploying import DeployOptions, definition, server
from penstock.flows.errors import FlowDefinitionError, FlowTimeoutError, ParameterError
from penstock.flows.flow_life import FlowLife
from penstock.flows.generators import iterate, iterate_async
from penstock.flows.journal import Memory
from penstock.flows.names import checked_names
from penstock.flows.operations import drive, drive_async
from penstock.flows.options import FlowOptions, OnChangedCode, check_options
from penstock.flows.parameters import Parameters
from penstock.flows.prints import watch_prints
from penstock.flows.states import State
from penstock.flows.step import P, R, Step

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,199}\Z")


class Flow(Step[P, R]):
    """A function that Penstock runs. limits: names of the limits that a run passes first; tags: to find it by.

    Called outside of a worker it runs here and now, as plain Python, with its retries and timeout. Called inside
    another flow it is one call of that run, recorded like a task.
    """

    kind = "flow"
    late = FlowTimeoutError

    def __init__(self, fn: Callable[P, R], options: Mapping[str, Any]) -> None:
        super().__init__(fn, options)
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise FlowDefinitionError(f'flow name {self.name!r}: give letters, digits and dashes, e.g. name="reroute"')
        self.limits = checked_names(options.get("limits", ()), "limits")
        self.runner = options.get("runner")
        if self.runner is not None and not callable(getattr(self.runner, "open", None)):
            raise FlowDefinitionError(f"runner={self.runner!r}: give ThreadRunner(), ProcessRunner(), DaskRunner() …")
        self.log_prints = bool(options.get("log_prints", False))
        self.on_changed_code: OnChangedCode = options.get("on_changed_code", "continue")
        if self.on_changed_code not in get_args(OnChangedCode):
            known = ", ".join(map(repr, get_args(OnChangedCode)))
            raise FlowDefinitionError(f"on_changed_code={self.on_changed_code!r}: there are {known}")
        self.description = inspect.getdoc(fn) or ""
        self._parameters = Parameters(self.name, fn, self.signature)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if is_given_future(args, kwargs) and not (self.is_generator and self.is_async):
            return cast("R", self._call_later(args, kwargs) if self.is_async else self._call_resolved(args, kwargs))
        values = self._validate_call(args, kwargs)
        taken, named = self._parameters.arguments(values)
        outer = current_context()
        if self.log_prints and (outer is None or outer.journal is None):  # a worker catches all that is printed
            watch_prints()
        call = self._root_call(values, taken, named) if outer is None else name_call(self, outer, taken, named)
        if self.policy.retries and call.context is not None and call.context.journal is None:
            call = replace(call, context=replace(call.context, journal=Memory()))
        if self.is_generator:
            items = iterate_async if self.is_async else iterate
            return cast("R", items(lambda: call, self._life))
        life = self._life(call).inside()
        return cast("R", drive_async(life) if self.is_async else drive(life))

    def with_options(self, **options: Unpack[FlowOptions]) -> Flow[P, R]:
        """The same flow with other options; those not named stay."""
        check_options("flow", options, FlowOptions)
        return Flow(self.fn, {**self.options, **options})

    def validate_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: converted, defaults filled in.  Raises ParameterError naming each problem."""
        return self._parameters.validate(given)

    def parameter_problems(self, given: Mapping[str, Any], *, complete: bool = True) -> list[str]:
        """What is wrong with parameters, one sentence each.  complete: false where others are added to them later."""
        return self._parameters.problems(given, complete=complete)

    def parameter_schema(self) -> dict[str, Any]:
        """The JSON Schema of the parameters, an object.  Raises FlowDefinitionError where there can be none."""
        return self._parameters.schema()

    def deploy(self, name: str | None = None, **options: Unpack[DeployOptions]) -> str:
        """Make or change a deployment of this flow (DeployOptions says what it takes); by default under its own name.

        Goes to the Penstock that `penstock up` runs here, or that PENSTOCK_API_URL and PENSTOCK_API_KEY name. The runs
        are carried out by its workers, which must have the flow (PENSTOCK_FLOWS).
        Returns "created", "updated" or "unchanged".  Raises DeployError, and the server's errors with their reason.
        """
        return server("deploy()").deploy(self, definition(name or self.name, options))

    def serve(self, name: str | None = None, **options: Unpack[DeployOptions]) -> None:
        """Deploy this flow, and run a worker for it in this process until Ctrl-C or SIGTERM.

        Where PENSTOCK_DATABASE_URL, PENSTOCK_BUS_URL and PENSTOCK_REDIS_URL are set it joins that Penstock; else it is
        one by itself, as `penstock up` in this directory with this flow. When it stops, runs have a few seconds to end
        and are handed back, and the schedules of the deployment are paused: nobody would carry out what they start. A
        process that is killed cannot do that; its runs wait for the next one.
        Raises DeployError, and the server's errors with their reason.
        """
        server("serve()").serve(self, definition(name or self.name, options))

    def name_run(self, values: Mapping[str, Any]) -> str:
        """What a run with these (validated) parameters is shown as; "" where the flow has no `run_name`."""
        return self.label(lambda: values)

    def call_body(self, values: Mapping[str, Any]) -> Any:
        """One try with validated parameters, in the current context: for a worker, which does retries and timeout.

        An async flow gives a coroutine; a generator's result is the list of its items.
        """
        args, kwargs = self._parameters.arguments(values)
        context = current_context() or local_context(self.name, values)
        life = FlowLife(self, Call(self, args, kwargs, context), context).on_worker()
        return drive_async(life) if self.is_async else drive(life)

    def tell_end(self, state: State, values: Mapping[str, Any], error: BaseException | None = None) -> None:
        """Call the hooks of a state that the run's own process did not live to tell: for a worker, in another process.

        values: as validated.  error: why; hooks get it in their Moment.
        """
        args, kwargs = self._parameters.arguments(values)
        life = tell(Call(self, args, kwargs, current_context()), state, error=error)
        asyncio.run(drive_async(life)) if self.is_async else drive(life)

    def _call_resolved(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """With results in place of futures, which parameters cannot be validated as."""
        given = drive(arrived(Call(self, args, kwargs, None)))
        return self(*given.args, **given.kwargs)

    async def _call_later(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = await drive_async(arrived(Call(self, args, kwargs, None)))
        result: Any = self(*given.args, **given.kwargs)
        return await result

    def _root_call(self, values: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return Call(self, args, kwargs, local_context(self.name, values, run_name=self.name_run(values)))

    def _life(self, call: Call) -> FlowLife:
        context = cast("RunContext", call.context)  # a flow makes its own run where there is none
        return FlowLife(self, call, context)

    def _validate_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            given = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ParameterError(self.name, [str(error)]) from None
        return self._parameters.validate(given)


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowOptions]) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a flow; with and without arguments, sync and async, generators too.

    name: letters, digits, dashes; by default the function's, with dashes for underscores.
    run_name, tags, retry_if, serializer, store and the hooks: as of `task`.
    retries: further tries of a failed run, which keep what finished tasks returned.  retry_delay: seconds, a timedelta,
    a list of them, or `exponential(…)`.  timeout: seconds for one try of the run; a worker ends it, in plain Python
    async code is cancelled and sync code fails but goes on in its thread.
    limits: names of limits (files.md) that each run passes first.
    runner: where submitted tasks run: `ThreadRunner()` (the default), `ProcessRunner()`, `DaskRunner()`, `RayRunner()`.
    log_prints: what the flow and its tasks print goes to the run's log; on a worker it always does.
    on_changed_code: when a run is resumed with other code than it began with: "continue" (told in its log, on what was
    recorded), "restart" (forget what was recorded), "ask" (pause until somebody has chosen one of these two) or
    "refuse" (fail, with what changed).
    Raises FlowDefinitionError.
    """
    check_options("flow", options, FlowOptions)

    def decorate(fn: Callable[..., Any]) -> Flow[..., Any]:
        return Flow(fn, options)

    return decorate if fn is None else decorate(fn)
