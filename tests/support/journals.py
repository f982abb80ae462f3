"""Runs of flows with a journal in memory, as a worker's child has one over its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from penstock.flows import Flow, RunContext, State
from penstock.flows.context import entered
from penstock.flows.journal import Journal, TaskCall
from penstock.flows.sources import Past, RecordedCall


class Kept:
    """What a database would have kept of a run: each finished call, in order."""

    def __init__(self, recorded: dict[str, bytes] | None = None, past: Past | None = None) -> None:
        self.calls: list[TaskCall] = []
        self.recorded = recorded or {}
        self.past = past
        self.dead = False
        self.fails_at: int | None = None  # the n-th record, from 0, is where the process dies

    def record(self, call: TaskCall) -> Future[None]:
        if self.fails_at is not None and len(self.calls) >= self.fails_at:
            self.dead = True
            raise Died
        self.calls.append(call)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def completed(self) -> dict[str, bytes]:
        """What the next try is given."""
        return self.recorded | {call.key: call.result for call in self.calls if call.state is State.COMPLETED}

    def named(self, name: str) -> list[TaskCall]:
        return [call for call in self.calls if call.task == name]

    def remembered(self, flow: str = "") -> Past:
        """What is known of the code that ran.  flow: digest of the flow's."""
        return Past(flow, {call.key: RecordedCall(call.task, call.source, call.parent) for call in self.calls})

    def context(self, **more: Any) -> RunContext:
        return RunContext("r", "f", journal=Journal(self.recorded, self.record, self.past), **more)

    def run(self, flow: Flow[..., Any], tries_left: int = 0, **values: Any) -> Any:
        """One try, as a worker's child makes it."""
        with entered(self.context(tries_left=tries_left)):
            body: Callable[..., Any] = flow.call_body
            found = body(flow.validate_parameters(values))
            return asyncio.run(found) if flow.is_async else found

    def again(self) -> Kept:
        """The next try, in a process that knows only what was kept."""
        return Kept(self.completed(), self.remembered())


class Died(BaseException):
    """The process died before a record was kept."""


class Bodies:
    """Counts how often bodies ran, by name.  within: the run whose process may be dead."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.within: Kept | None = None

    def __call__(self, name: str) -> str:
        if self.within is not None and self.within.dead:
            raise Died
        self.ran.append(name)
        return name
