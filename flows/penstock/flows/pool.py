"""Threads that carry out submitted calls.

They are daemons: a body that never returns must not keep a program from ending. A thread that waits for work which
stands behind it in its own queue does that work itself (futures.py), so nested submits cannot lock each other out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_here = threading.local()


class Pool:
    """At most `threads` of them, started when there is work and no idle one."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it called by one of the threads; it must not raise."""
        self._queue.put(work)
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._serve, name="penstock-task", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> list[threading.Thread]:
        """Let the threads end once the queue is empty.  Returns those that are still there."""
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)
            return [thread for thread in self._threads if thread.is_alive()]

    def _serve(self) -> None:
        _here.serves = True
        while (work := self._next()) is not None:
            work()
            del work  # what it holds must not outlive it in an idle thread

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._queue.get_nowait()
        except Empty:
            self._idle.release()
            return self._queue.get()


def serves_here() -> bool:
    """Whether this thread is one of a pool."""
    return getattr(_here, "serves", False)
