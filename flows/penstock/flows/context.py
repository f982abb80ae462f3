"""Which run the code is in: `get_run_context()` and `get_logger()`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from penstock.events.ids import new_id
from penstock.flows.errors import NotInRunError
from penstock.flows.journal import ROOT, Journal

if TYPE_CHECKING:
    from penstock.flows.host import Host
    from penstock.flows.scope import Scope

LOGGER = logging.getLogger("penstock.run")
_current: ContextVar[RunContext | None] = ContextVar("penstock_run", default=None)


@dataclass(frozen=True, slots=True)
class RunContext:
    """The run that the calling code belongs to.

    run_name: as the flow's `run_name` makes it.  attempt: 1 for the first try of the run.  tries_left: how many times
    the run may still be retried after this try.  task: the name of the enclosing task, None in the flow itself.
    correlationid, causationid, traceparent, hops: where the run comes from; what it emits carries them on.
    """

    run_id: str
    flow: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = "default"
    attempt: int = 1
    task: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    hops: int = 0
    journal: Journal | None = field(default=None, repr=False)  # None: plain Python, nothing is kept
    parent: str = field(default=ROOT, repr=False)  # key of the enclosing call
    run_name: str = ""
    tries_left: int = 0
    scope: Scope | None = field(default=None, repr=False)  # of the enclosing call of a flow, while its body runs
    log_prints: bool = field(default=False, repr=False)
    may_suspend: bool = field(default=False, repr=False)  # whoever runs this takes `Suspended` for what it is
    host: Host | None = field(default=None, repr=False)  # who looks after the run while it has no process

    def inside(self, flow: str, task: str | None, key: str) -> RunContext:
        """The context of a call that this one makes."""
        return RunContext(
            self.run_id, flow, self.parameters, self.namespace, self.attempt, task,
            self.correlationid, self.causationid, self.traceparent, self.hops, self.journal, key,
            self.run_name, self.tries_left, self.scope, self.log_prints, self.may_suspend, self.host,
        )  # fmt: skip  # dataclasses.replace takes five times as long, and this is done for every call

    def abroad(self) -> RunContext:
        """The same for code in another process, where nothing can be journalled or submitted."""
        return replace(self, parameters={}, journal=None, scope=None, log_prints=False, may_suspend=False, host=None)


def current_context() -> RunContext | None:
    """The run that this code belongs to, or None."""
    return _current.get()


def get_run_context() -> RunContext:
    """The run that this code belongs to.  Raises NotInRunError outside of flows (and in threads started by hand)."""
    found = _current.get()
    if found is None:
        raise NotInRunError(
            "there is no run here: call it from a flow or a task (a thread has to be started with"
            " asyncio.to_thread or contextvars.copy_context().run to belong to the run)"
        )
    return found


def get_logger() -> logging.LoggerAdapter[logging.Logger]:
    """A logger whose lines are kept with the run, in records with `run_id`, `flow`, `task`. Works outside runs too."""
    found = _current.get()
    extra = {"run_id": found.run_id, "flow": found.flow, "task": found.task} if found else {}
    return logging.LoggerAdapter(LOGGER, extra)


@contextmanager
def entered(context: RunContext) -> Iterator[RunContext]:
    """Let the enclosed code belong to `context`."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def leave_run() -> None:
    """Let the code from here on belong to no run: in a process that a run forked, where nothing can be journalled."""
    _current.set(None)


def local_context(
    flow: str, parameters: Mapping[str, Any], journal: Journal | None = None, run_name: str = ""
) -> RunContext:
    """The context of a run without a server; its log lines go to stderr unless the program has set up logging."""
    if not LOGGER.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
    return RunContext(new_id(), flow, parameters, journal=journal, run_name=run_name)
