"""The life of a call of a flow or task: named, replayed or tried, told to hooks, recorded.

Lives are generators of operations (operations.py), the same for sync and async code.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from penstock.events.instants import Instant
from penstock.flows.arguments import futures_within, with_results
from penstock.flows.caching import cached
from penstock.flows.context import RunContext, get_logger
from penstock.flows.errors import CallError, FlowTimeoutError, RunInterrupted, RunTimedOut, Suspended, TaskTimeoutError
from penstock.flows.futures import TaskFuture
from penstock.flows.hooks import Moment
from penstock.flows.journal import ROOT, Journal, Memory, TaskCall
from penstock.flows.operations import AllSettled, Blocking, Life, Pause, Settled, drive, drive_async
from penstock.flows.results import is_plain
from penstock.flows.scope import Compensation
from penstock.flows.serializers import is_stored, pack, unpack
from penstock.flows.states import State
from penstock.flows.step import Step
from penstock.flows.tries import Body, Told, describe, now


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has been made and named, and is not yet carried out.

    context: that its body runs in; None: outside of all runs.  outer: key of the call that made it.
    journal: where it is recorded; None: nowhere.  takes: the calls whose results it was given.
    elsewhere: what runs its body, for submitted calls.
    """

    step: Step[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: RunContext | None
    outer: str | None = None
    journal: Journal | None = None
    takes: tuple[str, ...] = ()
    elsewhere: Callable[..., Any] | None = None
    started: Instant = 0

    @property
    def key(self) -> str:
        """Its name within the run; "" where there is no journal."""
        return self.context.parent if self.journal is not None and self.context is not None else ""

    def arguments(self) -> dict[str, Any]:
        """Its arguments by name."""
        return self.step.bind(self.args, self.kwargs)

    def record(self, state: State, result: bytes, error: str | None = None) -> Future[None] | None:
        """Hand the finished call to the journal, if there is one."""
        if self.journal is None:
            return None
        step = self.step
        return self.journal.record(
            TaskCall(
                self.key,
                self.outer or ROOT,
                step.name,
                state,
                result,
                self.started,
                now(),
                error,
                step.label(self.arguments),
                self.takes,
                step.source,
            )
        )

    def moment(self, state: State, result: Any = None, error: BaseException | None = None) -> Moment:
        """What hooks are told."""
        run_id = None if self.context is None else self.context.run_id
        return Moment(self.step.kind, self.step.name, state, self.arguments(), run_id, result, error)


def invoke(step: Step[..., Any], context: RunContext | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry out a call made in `context`; gives the result, or for an async step a coroutine.

    Without a journal (plain Python, no server) nothing is recorded.
    """
    if step.is_bare and (context is None or context.journal is None) and not is_given_future(args, kwargs):
        inner = None if context is None else _inside(step, context, "")
        body = Body(step, inner, args, kwargs)
        return body.unfold() if step.is_async else body.block()
    life = carry_out(name_call(step, context, args, kwargs))
    return drive_async(life) if step.is_async else drive(life)


def name_call(step: Step[..., Any], context: RunContext | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call that is made now in `context`."""
    if context is None:
        return Call(step, args, kwargs, None)
    journal = context.journal
    if step.on_rollback_hook is not None and context.task is not None:
        raise CallError(
            f"task {step.name!r} has on_rollback and is called by task {context.task!r}; call it from a flow: once the"
            " outer task is recorded, nobody would know any more what to undo"
        )
    if journal is None:
        return Call(step, args, kwargs, _inside(step, context, ""))
    key = journal.name_call(context.parent, step.name, step.bind(args, kwargs))
    takes = journal.origins.among(args, kwargs)
    return Call(step, args, kwargs, _inside(step, context, key), context.parent, journal, takes, started=now())


def carry_out(
    call: Call,
    body: Callable[[Call], Life[Any]] | None = None,
    undo: Callable[[BaseException], Life[None]] | None = None,
) -> Life[Any]:
    """The life of a call; returns its result or raises what ended it.

    body: the life of one try; by default the step's function is run.  undo: what precedes the end by an error.
    """
    journal = call.journal
    if is_given_future(call.args, call.kwargs):
        call = yield from arrived(call)
    if journal is not None and (recorded := journal.recorded(call.key)) is not None:
        value = yield from replayed(call, journal, recorded)
        return value
    yield from tell(call, State.RUNNING)
    try:
        value = yield from _computed(call, body or _one_try)
        record = yield from packed(call, value)
    except GeneratorExit:  # nobody carries this life on any more
        raise
    except BaseException as error:  # recorded and told whatever it is, and raised again
        if undo is not None:
            yield from undo(error)
        yield from ended(call, error)
        raise
    yield from completed(call, value, record)
    return value


def arrived(call: Call) -> Life[Call]:
    """The call with results in place of the futures among its arguments.  Raises what one of them raised."""
    futures = futures_within(call.args, call.kwargs)
    for future in futures:
        future.asked = True
        future.help_along()
    yield AllSettled([each.settled for each in futures])
    args, kwargs = with_results(call.args, call.kwargs)
    return replace(call, args=args, kwargs=kwargs)


def replayed(call: Call, journal: Journal, recorded: bytes) -> Life[Any]:
    """What the recorded call returned."""
    step = call.step
    if isinstance(journal, Memory):
        value = journal.find(recorded)
    elif is_stored(recorded):
        value = yield Blocking(lambda: unpack(recorded, step.result_type, step.result_store))
    else:
        value = unpack(recorded, step.result_type, step.result_store)
    _remember(call, value)
    return value


def tell(call: Call, state: State, result: Any = None, error: BaseException | None = None) -> Life[None]:
    """Call the hooks of this state. A hook that raises is logged, and changes nothing."""
    hooks = call.step.hooks_for(state)
    for hook in hooks:
        moment = call.moment(state, result, error)
        try:
            yield Told(hook, moment, call.context)
        except Exception as problem:  # hooks are the user's code, and beside the matter
            name = getattr(hook, "__qualname__", repr(hook))
            get_logger().error(f"hook {name} of {call.step.kind} {call.step.name!r} failed: {describe(problem)}")


def packed(call: Call, value: Any) -> Life[bytes]:
    """The result as the journal keeps it.  Raises TaskResultError."""
    step, journal = call.step, call.journal
    if journal is None:
        return b""
    if isinstance(journal, Memory):
        return journal.keep(value)
    found = pack(value, step.name, step.serializer, step.result_store)
    if not step.warned and step.serializer.name == "json" and not is_plain(value) and not step.result_type.known:
        step.warned = True
        get_logger().warning(
            f"{step.kind} {step.name!r} returns {type(value).__name__} and has no return annotation:"
            " a resumed run gets it back as plain JSON. Annotate the function's result"
        )
    if found.store is not None:
        yield Blocking(found.store)
    return found.body


def completed(call: Call, value: Any, record: bytes) -> Life[None]:
    """Record the result, and tell."""
    written = call.record(State.COMPLETED, record)
    if written is not None:
        yield Settled(written)
    if call.journal is not None:
        call.journal.end_call(call.key)
    _remember(call, value)
    yield from tell(call, State.COMPLETED, result=value)


def ended(call: Call, error: BaseException) -> Life[None]:
    """Record what ended the call instead of a result, and tell."""
    state = state_after(error)
    if isinstance(error, Exception):
        written = call.record(state, b"null", describe(error))
        if written is not None:
            yield Settled(written)
        if call.journal is not None:
            call.journal.end_call(call.key)
    yield from tell(call, state, error=error)


def state_after(error: BaseException) -> State:
    """The state of a call that `error` ended."""
    if isinstance(error, Suspended):
        return State.PAUSED
    if is_out_of_time(error):
        return State.TIMED_OUT
    if isinstance(error, RunInterrupted | asyncio.CancelledError):
        return State.CANCELLED
    return State.FAILED if isinstance(error, Exception) else State.CRASHED


def is_given_future(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether there is something to wait for among the arguments."""
    return TaskFuture.made and bool(futures_within(args, kwargs))


def is_out_of_time(error: BaseException) -> bool:
    """Whether a timeout ended the call. A worker cancels async code with the kind of interruption as the message."""
    if isinstance(error, asyncio.CancelledError):
        return RunTimedOut in error.args
    return isinstance(error, TaskTimeoutError | FlowTimeoutError | RunTimedOut)


def _inside(step: Step[..., Any], context: RunContext, key: str) -> RunContext:
    if step.kind == "flow":
        inner = context.inside(step.name, None, key)
        # What a task has called is not called again once the task is recorded: nothing of it can be undone later.
        return inner if context.task is None else replace(inner, scope=None)
    return context.inside(context.flow, step.name, key)


def _computed(call: Call, body: Callable[[Call], Life[Any]]) -> Life[Any]:
    step = call.step
    if step.cache is None:
        return (yield from _tries(call, body))
    return (yield from cached(step, step.cache, call.arguments(), now, lambda: _tries(call, body)))


def _tries(call: Call, body: Callable[[Call], Life[Any]]) -> Life[Any]:
    """Try the body as often as the step's policy allows."""
    policy, context = call.step.policy, call.context
    for retry in range(1, policy.retries + 2):
        if context is not None and context.journal is not None:
            context.journal.begin_try(context.parent, call.outer, policy.retries > 0)
        try:
            return (yield from body(call))
        except Exception as error:  # whatever the user's code raises may be a reason to try again
            if retry > policy.retries or not policy.allows(error):
                raise
            yield Pause(_wait_before(call.step, retry, error))
    raise AssertionError("the last try returns or raises")


def _one_try(call: Call) -> Life[Any]:
    return (yield Body(call.step, call.context, call.args, call.kwargs, call.elsewhere))


def _wait_before(step: Step[..., Any], retry: int, error: Exception) -> float:
    seconds = step.policy.wait(retry, random.random())
    get_logger().warning(
        f"{step.kind} {step.name!r} failed ({describe(error)}); retry {retry} of {step.policy.retries} in {seconds:g} s"
    )
    return seconds


def _remember(call: Call, value: Any) -> None:
    """The call's result may go into other calls, and may have to be undone."""
    if call.journal is not None:
        call.journal.origins.add(value, call.key)
    undo, context = call.step.on_rollback_hook, call.context
    if undo is not None and context is not None and context.scope is not None:
        moment = call.moment(State.COMPLETED, value)
        context.scope.compensations.append(Compensation(call.step, undo, call.key, moment))
