"""What one call of a flow holds while it runs: its task runner, what it has submitted, what to undo should it fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.flows.futures import TaskFuture
from penstock.flows.hooks import Moment
from penstock.flows.pool import Pool
from penstock.flows.runners.threads import ThreadRunner
from penstock.flows.tries import abandon

if TYPE_CHECKING:
    from penstock.flows.runners import Crew, TaskRunner
    from penstock.flows.step import Step


UNRECORDED = 64  # submitted calls whose bodies have ended and whose records are on their way; a crash repeats these


@dataclass(frozen=True, slots=True)
class Compensation:
    """What undoes a finished call.  key: of the call.  moment: what the function is told."""

    step: Step[..., Any]
    function: Callable[[Moment], Any]
    key: str
    moment: Moment


class Scope:
    """One call of a flow. Only its body's own process sees it; threads of the run share it."""

    def __init__(self, runner: TaskRunner | None, *, on_loop: bool, ends: bool = True) -> None:
        """on_loop: async calls may be left to the event loop that runs here, since the flow does not block it.

        ends: somebody will ask for `unheard` at the end; else what has ended is forgotten.
        """
        self.on_loop, self._ends = on_loop, ends
        self.compensations: list[Compensation] = []
        self.unrecorded = threading.Semaphore(UNRECORDED)
        self._runner: TaskRunner = runner or ThreadRunner()
        self._opened: tuple[Crew, Pool] | None = None
        self._submitted: set[TaskFuture[Any]] = set()
        self._lock = threading.Lock()

    def submit(self, future: TaskFuture[Any]) -> None:
        """Have a thread of the pool carry it out."""
        self.add(future)
        self._open()[1].submit(future.run)

    def add(self, future: TaskFuture[Any]) -> None:
        """The flow does not end before this future has."""
        self._submitted.add(future)
        future.ended = self._ended

    @property
    def elsewhere(self) -> Callable[..., Any] | None:
        """What runs the bodies of sync tasks; None: whoever carries out the call."""
        return None if isinstance(self._runner, ThreadRunner) else self._open()[0].run

    def open_futures(self) -> list[Future[Any]]:
        """What has been submitted and not ended."""
        return [future.settled for future in list(self._submitted) if not future.done()]

    def unheard(self) -> list[TaskFuture[Any]]:
        """Calls that failed, and nobody asked for their result."""
        return [each for each in self._submitted if each.done() and not each.asked]

    def cancel(self) -> None:
        """Take back what has not begun, cancel async calls."""
        for future in list(self._submitted):
            future.cancel()

    def close(self) -> None:
        """Let go of the runner. Threads that still run a body are counted as abandoned."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            crew, pool = opened
            running = bool(self.open_futures())
            threads = pool.close()
            if running:
                abandon(threads)
            crew.close()

    def _open(self) -> tuple[Crew, Pool]:
        with self._lock:
            if self._opened is None:
                crew = self._runner.open()
                self._opened = crew, Pool(crew.threads)
            return self._opened

    def _ended(self, future: TaskFuture[Any]) -> None:
        ended_well = future.settled.cancelled() or future.settled.exception() is None
        if ended_well or future.asked or not self._ends:
            self._submitted.discard(future)
