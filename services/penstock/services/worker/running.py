"""The present run of a child, as its parent sees it, and the end of a process in words."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penstock.services.worker.frames import Asked, Execute, Finished, Log, Started, TaskFinished

OnTask = Callable[[TaskFinished], Awaitable[None]]
OnLog = Callable[[Log], None]
OnStarted = Callable[[Started], None]
OnAsk = Callable[[Asked], Awaitable[str]]  # gives why it is refused, or ""


@dataclass(slots=True, eq=False)
class Running:
    """The present run, seen from the parent."""

    order: Execute
    on_task: OnTask
    on_log: OnLog
    on_started: OnStarted
    on_ask: OnAsk
    done: asyncio.Future[Finished]
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    watch: asyncio.TimerHandle | None = None
    journalling: set[asyncio.Task[None]] = field(default_factory=set)
    killed_as: tuple[str, str] | None = None  # state and reason, when the parent ends it by force

    def fail(self, error: BaseException) -> None:
        """What the worker does for the run failed; the run must not go on."""
        if not self.done.done():
            self.done.set_exception(error)


def exit_reason(code: int | None) -> str:
    """An exit code in words, to follow "the process"."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    if code == 137:  # 128 + SIGKILL, as containers and shells tell it
        return "was killed by SIGKILL (out of memory?)"
    return f"exited with code {code}" + (" (os._exit?)" if code != 70 else "")
