"""The life of a call of a flow: its scope, what it waits for at its end, what is undone when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.events.ids import derived_id
from penstock.flows.calls import Call, carry_out, is_out_of_time, state_after, tell
from penstock.flows.context import RunContext, get_logger
from penstock.flows.errors import CodeChangedError, RunCancelled, RunTimedOut, Suspended
from penstock.flows.journal import TaskCall
from penstock.flows.operations import AllSettled, Life, Settled
from penstock.flows.prints import end_prints
from penstock.flows.scope import Compensation, Scope
from penstock.flows.states import State
from penstock.flows.step import Step
from penstock.flows.task import Task
from penstock.flows.tries import Body, describe, now

if TYPE_CHECKING:
    from penstock.flows.flow import Flow

CHANGED = "the code changed under this run"
_UNDOABLE = "(undoable)"  # marks recorded sub-flows that hold compensations


class FlowLife:
    """One call of a flow, through all its tries.  context: of its body, with its key as `parent`."""

    def __init__(self, flow: Flow[..., Any], call: Call, context: RunContext) -> None:
        self._flow, self._call, self._context = flow, call, context
        self._outer = context.scope  # of the flow that called this one
        self._scope = Scope(flow.runner, on_loop=flow.is_async)

    def inside(self) -> Life[Any]:
        """As a call in another flow, or by itself in plain Python."""
        journal, key = self._call.journal, self._call.key
        if journal is not None and journal.recorded(key) is not None and journal.recorded(_mark(key)) is not None:
            journal.begin_try(key, self._call.outer, may_be_tried_again=False)
            value = yield from self.one_try(self._call)  # its tasks are recorded: only to know what could be undone
            journal.end_call(key)
        else:
            value = yield from carry_out(self._call, self.one_try, self.undo)
        if self._outer is not None:
            self._outer.compensations += self._scope.compensations
        return value

    def on_worker(self) -> Life[Any]:
        """One try of a run, whose retries and records a worker sees to."""
        yield from self._check_code()
        yield from tell(self._call, State.RUNNING)
        try:
            value = yield from self.one_try(self._call)
        except GeneratorExit:
            raise
        except BaseException as error:  # told whatever it is, and raised again
            if not self._is_tried_again(error):
                yield from self.undo(error)
                yield from tell(self._call, state_after(error), error=error)
            raise
        self._tell_unasked()
        yield from tell(self._call, State.COMPLETED, result=value)
        return value

    def one_try(self, call: Call) -> Life[Any]:
        """Run the body once, and wait for what it has submitted."""
        context = self.open()
        try:
            value = yield Body(call.step, context, call.args, call.kwargs)
        except GeneratorExit:
            self.drop()
            raise
        except BaseException as error:
            yield from self.stop(error)
            raise
        yield from self.settle()
        return value

    def open(self) -> RunContext:
        """A fresh scope, and the context with it."""
        self._scope = Scope(self._flow.runner, on_loop=self._flow.is_async)
        log_prints = self._flow.log_prints or self._context.log_prints
        return replace(self._context, flow=self._flow.name, scope=self._scope, log_prints=log_prints)

    def settle(self) -> Life[None]:
        """The body has returned: what it submitted is waited for."""
        scope = self._scope
        try:
            while futures := scope.open_futures():
                yield AllSettled(futures)
        except BaseException as error:
            yield from self.stop(error)
            raise
        scope.close()
        end_prints(self._context.run_id)
        for future in scope.unheard():
            problem = future.settled.exception(0)
            told = "" if problem is None else f" ({describe(problem)})"
            get_logger().warning(f"submitted task {future.name!r} failed{told}, and nobody asked for its result")
        yield from self._mark_undoable()

    def stop(self, error: BaseException) -> Life[None]:
        """The body has raised: what has not begun is taken back, what runs is waited for unless time is up."""
        scope = self._scope
        scope.cancel()
        hurries = isinstance(error, RunCancelled | RunTimedOut | asyncio.CancelledError | KeyboardInterrupt)
        if not hurries:
            yield AllSettled(scope.open_futures())
        scope.close()
        end_prints(self._context.run_id)

    def drop(self) -> None:
        """Nobody carries this life on any more."""
        self._scope.cancel()
        self._scope.close()

    def undo(self, error: BaseException) -> Life[None]:
        """Call what undoes the finished tasks, the last one first. What fails is told, and the others are done."""
        if isinstance(error, Suspended):
            return
        for compensation in reversed(self._scope.compensations):
            try:
                yield from carry_out(self._undoing(compensation))
            except Exception as problem:  # as any task it may raise anything
                told = f"{compensation.step.name!r} could not be undone: {describe(problem)}"
                get_logger().error(told)
                error.add_note(told)
        self._scope.compensations.clear()

    def _undoing(self, compensation: Compensation) -> Call:
        name, context = f"{compensation.step.name}.rollback", self._context
        given = compensation.function
        step: Step[..., Any] = given.with_options(name=name) if isinstance(given, Task) else Task(given, {"name": name})
        journal = context.journal
        key = "" if journal is None else journal.name_call(context.parent, name, {"call": compensation.key})
        inner = replace(context.inside(self._flow.name, name, key), scope=None)
        return Call(
            step, (compensation.moment,), {}, inner, context.parent, journal, (compensation.key,), started=now()
        )

    def _mark_undoable(self) -> Life[None]:
        """A recorded sub-flow is not entered by a replay, unless it holds something that may have to be undone."""
        call, written = self._call, None
        if call.journal is not None and self._scope.compensations and call.journal.recorded(_mark(call.key)) is None:
            marked = _mark(call.key), call.outer or "", _UNDOABLE, State.COMPLETED, b"true", call.started, now()
            written = call.journal.record(TaskCall(*marked))
        if written is not None:
            yield Settled(written)

    def _is_tried_again(self, error: BaseException) -> bool:
        """By the worker; it may also try again what it timed out itself."""
        return self._context.tries_left > 0 and (is_out_of_time(error) or self._flow.policy.allows(error))

    def _check_code(self) -> Life[None]:
        """Where the code is not what the run was recorded with, do what `on_changed_code` says."""
        journal, host, choice = self._context.journal, self._context.host, self._flow.on_changed_code
        changes = [] if journal is None else journal.past.changes(self._flow.name, self._flow.source)
        if journal is None or not changes:
            return
        if choice == "ask" and self._context.may_suspend:
            raise Suspended(f"{CHANGED}: {'; '.join(changes)}; let it go on, or begin anew", paused=True)
        if choice in ("ask", "refuse"):
            raise CodeChangedError(self._flow.name, changes)
        what = "goes on with the new code, on what was recorded"
        if choice == "restart":
            what = "begins anew, and forgets what was recorded"
            journal.restart()
        get_logger().warning(f"{CHANGED}: {'; '.join(changes)}; it {what}")
        if host is not None:
            yield Settled(host.ask("restart" if choice == "restart" else "continue", "", b"{}"))

    def _tell_unasked(self) -> None:
        journal = self._context.journal
        missing = [] if journal is None else journal.past.unasked(journal.named)
        if missing:
            get_logger().warning(f"{CHANGED}: {'; '.join(missing)}")


def _mark(key: str) -> str:
    return derived_id("undoable", key)
