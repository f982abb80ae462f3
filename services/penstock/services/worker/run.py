"""One run inside a child: the user's code with its context, its journal, its interruptions, and how it ended."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import replace
from itertools import dropwhile
from typing import Any

import msgspec

import penstock.flows
from penstock.events.errors import PenstockError
from penstock.events.instants import Instant
from penstock.flows.context import RunContext, entered
from penstock.flows.errors import (
    FlowTimeoutError,
    NotInRunError,
    ParameterError,
    RunCancelled,
    RunInterrupted,
    RunTimedOut,
    Suspended,
    WaitError,
)
from penstock.flows.flow import Flow
from penstock.flows.host import Wanted
from penstock.flows.journal import Journal, TaskCall
from penstock.flows.results import encode_result
from penstock.flows.sources import Past, RecordedCall
from penstock.flows.states import State
from penstock.flows.tries import abandoned_threads, describe, now, sendable
from penstock.services.worker.channel import Channel, Interruption
from penstock.services.worker.frames import Asked, Execute, Finished, Frame, Started, TaskFinished

LONGEST_TRACEBACK = 65_536  # characters; the end is kept
_OWN = (os.path.dirname(penstock.flows.__file__), os.path.dirname(__file__))

_ASYNCIO = os.path.dirname(asyncio.__file__)


class ProcessDied(PenstockError):
    """The run's process ended without a word of its own."""


class Run:
    """Carries out one order. `confirm` and `interrupt` come from other threads."""

    def __init__(self, order: Execute, flow: Flow[..., Any], channel: Channel, interruption: Interruption) -> None:
        self.order = order
        self._flow = flow
        self._channel = channel
        self._interruption = interruption
        self._unconfirmed: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._over = False
        self._asked: type[RunInterrupted] | None = None
        self._cancel_task: Callable[[], object] | None = None  # of an async flow, while it runs
        self._process = os.getpid()
        self._name = ""  # what the run is shown as
        self._until: Instant | None = None  # the first instant at which something that it waits for is over

    def carry_out(self) -> Finished:
        """Run the user's code to its end, whatever that is."""
        try:
            end = self._finish(*self._outcome())
        finally:
            if os.getpid() != self._process:  # user code forked, and the copy came back here: it is no worker's child
                os._exit(0)
        return end

    def confirm(self, call: str, refused: str = "") -> None:
        """The call is in the journal, or what was asked is kept: its code may go on.  refused: why it is not."""
        with self._lock:
            future = self._unconfirmed.pop(call, None)
        if future is not None and refused:
            future.set_exception(WaitError(refused))
        elif future is not None:
            future.set_result(None)

    def ask(self, what: Wanted, key: str, body: bytes) -> Future[None]:
        """See Host."""
        order = self.order
        return self._deliver(key, Asked(run_id=order.run_id, epoch=order.epoch, what=what, call=key, body=body), what)

    def leaving(self, until: Instant | None) -> None:
        """See Host."""
        with self._lock:
            if until is not None:
                self._until = until if self._until is None else min(until, self._until)

    def interrupt(self, kind: type[RunInterrupted]) -> None:
        """Raise `kind` in sync code, cancel async code."""
        with self._lock:
            if self._over:
                return
            self._asked = kind
            if not self._flow.is_async:
                self._interruption.ask(kind)
            elif self._cancel_task is not None:
                self._cancel_task()

    def _outcome(self) -> tuple[State, bytes, BaseException | None]:
        try:
            values = self._flow.validate_parameters(_json_object(self.order))
            self._name = self._flow.name_run(values)
            if self.order.ended:
                return self._tell_end(values)
            self._channel.send(self._started())
            return State.COMPLETED, encode_result(self._run(values), self._flow.name), None
        except (RunTimedOut, RunCancelled) as error:
            return _state_of(type(error)), b"null", error
        except Suspended as error:
            return State.PAUSED if error.paused else State.WAITING, b"null", error
        except asyncio.CancelledError as error:
            return _state_of(self._asked), b"null", error
        except FlowTimeoutError as error:
            # The flow's own timer was faster than the worker's. Of another flow that it calls, this is its error.
            own = error.name == self._flow.name
            return State.TIMED_OUT if own else State.FAILED, b"null", error
        except BaseException as error:  # user code may raise anything, SystemExit included: that ends the run, not us
            if (left := suspended_in(error)) is not None:
                return State.PAUSED if left.paused else State.WAITING, b"null", left
            return State.FAILED, b"null", error

    def _tell_end(self, values: dict[str, Any]) -> tuple[State, bytes, BaseException | None]:
        """The run ended without its process: only its hooks are called."""
        order = self.order
        context = replace(self._context(values), journal=None, host=None, may_suspend=False)
        with entered(context):
            self._flow.tell_end(State(order.ended), values, ProcessDied(order.reason))
        return State.COMPLETED, b"null", None

    def _started(self) -> Started:
        order = self.order
        return Started(run_id=order.run_id, epoch=order.epoch, at=now(), name=self._name, source=self._flow.source)

    def _run(self, values: dict[str, Any]) -> Any:
        timeout = self._flow.policy.timeout
        timer = threading.Timer(timeout, self.interrupt, (RunTimedOut,)) if timeout is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            return copy_context().run(self._run_body, values)
        finally:
            if timer is not None:
                timer.cancel()

    def _run_body(self, values: dict[str, Any]) -> Any:
        with entered(self._context(values)):
            if self._flow.is_async:
                with asyncio.Runner() as runner:
                    return runner.run(self._watched(self._flow.call_body(values)))
            try:
                self._interruption.arm()
                return self._flow.call_body(values)
            finally:
                self._interruption.disarm()

    async def _watched(self, body: Coroutine[Any, Any, Any]) -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with self._lock:
            if self._asked is not None:
                body.close()
                raise self._asked
            self._cancel_task = lambda: loop.call_soon_threadsafe(task.cancel, self._asked) if task else None
        try:
            return await body
        finally:
            with self._lock:
                self._cancel_task = None

    def _context(self, values: dict[str, Any]) -> RunContext:
        order = self.order
        return RunContext(
            order.run_id,
            self._flow.name,
            values,
            namespace=order.namespace,
            attempt=order.attempt,
            correlationid=order.correlationid,
            causationid=order.causationid,
            traceparent=order.traceparent,
            hops=order.hops,
            journal=Journal(order.journal, self._record, _past(order)),
            run_name=self._name,
            tries_left=order.retries_left,
            may_suspend=order.may_suspend,
            host=self if order.may_suspend else None,
        )

    def _record(self, call: TaskCall) -> Future[None]:
        """Send a finished call."""
        return self._deliver(call.key, self._frame(call), call.task)

    def _deliver(self, key: str, frame: Frame, what: str) -> Future[None]:
        """Send what the worker has to confirm.

        In the main thread of a sync flow this waits, shielded: first journalled, then interrupted.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # nobody can cancel what has been done
        with self._interruption:
            with self._lock:
                if self._over:
                    raise NotInRunError(f"run {self.order.run_id} has ended; {what!r} was called from a rest of it")
                self._unconfirmed[key] = future
            self._channel.send(frame)
            if threading.current_thread() is threading.main_thread() and not _in_loop():
                wait([future])
        return future

    def _frame(self, call: TaskCall) -> TaskFinished:
        return TaskFinished(
            run_id=self.order.run_id,
            epoch=self.order.epoch,
            call=call.key,
            parent=call.parent,
            name=call.task,
            state=call.state,
            result=call.result,
            started=call.started,
            ended=call.ended,
            error=call.error,
            label=call.label,
            takes=call.takes,
            source=call.source,
        )

    def _finish(self, state: State, result: bytes, error: BaseException | None) -> Finished:
        self._close()
        return Finished(
            run_id=self.order.run_id,
            epoch=self.order.epoch,
            state=state,
            at=now(),
            result=result,
            error=None if error is None else self._explain(error),
            traceback=None if error is None or isinstance(error, Suspended) else user_traceback(error),
            spent=abandoned_threads() > 0,
            retry=state is not State.FAILED or error is None or self._may_be_retried(error),
            until=self._until if isinstance(error, Suspended) else None,
            waits_for=_waits_for(error),
        )

    def _may_be_retried(self, error: BaseException) -> bool:
        policy = self._flow.policy
        return policy.condition is None or policy.allows(error)

    def _close(self) -> None:
        """From here on nothing belongs to the run: threads that it left behind get errors."""
        with self._lock:
            self._over = True
            self._interruption.disarm()  # what was asked for too late must not hit the next run
            left, self._unconfirmed = self._unconfirmed, {}
        for future in left.values():
            future.set_exception(NotInRunError(f"run {self.order.run_id} has ended"))

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, Suspended):
            return sendable(error.reason)
        if isinstance(error, SystemExit):
            return f"the flow called sys.exit({error.code!r}); it ends by returning, or fails by raising"
        if isinstance(error, FlowTimeoutError) and error.name == self._flow.name:
            return self._explain_end(RunTimedOut)
        if isinstance(error, asyncio.CancelledError | RunInterrupted):
            return self._explain_end(self._asked or type(error))
        return describe(error)

    def _explain_end(self, kind: type[BaseException]) -> str:
        timeout = self._flow.policy.timeout
        if kind is RunTimedOut:
            return "its time was up" if timeout is None else f"it took longer than its timeout of {timeout:g} s"
        return "it was cancelled" if kind is RunCancelled else "it cancelled itself"


def user_traceback(error: BaseException) -> str | None:
    """The traceback without the frames of Penstock itself; None for what was refused before user code ran."""
    if isinstance(error, ParameterError):
        return None
    told = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        theirs = (frame for frame in seen.stack if not frame.filename.startswith(_OWN))
        kept: list[traceback.FrameSummary] = list(dropwhile(_of_asyncio, theirs))
        seen.stack = traceback.StackSummary.from_list(kept)
        seen = seen.__cause__ or seen.__context__
    return sendable("".join(told.format())[-LONGEST_TRACEBACK:])


def suspended_in(error: BaseException) -> Suspended | None:
    """What suspends the run out of a group of errors, where the others are no failures (tasks of a TaskGroup)."""
    if isinstance(error, Suspended):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [suspended_in(each) for each in error.exceptions]
        return found[0] if all(found) else None
    return None


def _waits_for(error: BaseException | None) -> str:
    if not isinstance(error, Suspended):
        return ""
    return "code" if error.paused and not error.key else "answer"


def _of_asyncio(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_ASYNCIO)


def _past(order: Execute) -> Past:
    return Past(order.source, {key: RecordedCall(*msgspec.structs.astuple(call)) for key, call in order.calls.items()})


def _state_of(kind: type[RunInterrupted] | None) -> State:
    return State.TIMED_OUT if kind is RunTimedOut else State.CANCELLED


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None  # get_running_loop would raise, and this is asked for every task


def _json_object(order: Execute) -> dict[str, Any]:
    try:
        return msgspec.json.decode(order.parameters, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ParameterError(order.flow, [f"they are no JSON object: {error}"]) from None
