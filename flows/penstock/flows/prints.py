"""Prints of flows with `log_prints`, in plain Python: lines for the run's log. (A worker catches all output.)"""

from __future__ import annotations

import sys
import threading
from typing import IO, Any

from penstock.flows.context import LOGGER, current_context, get_logger


class Printed:
    """Stands for `sys.stdout`: passes on what is written, except by code of runs that want their prints logged."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._rest: dict[str, str] = {}  # run → what stands without a line end
        self._busy = threading.local()  # a thread whose log goes to this very stream must not log that again

    def write(self, text: str) -> int:
        context = current_context()
        if context is None or not context.log_prints or getattr(self._busy, "logs", False):
            return self._stream.write(text)
        *lines, rest = (self._rest.pop(context.run_id, "") + text).split("\n")
        if rest:
            self._rest[context.run_id] = rest
        self._busy.logs = True
        try:
            for line in lines:
                get_logger().info("%s", line)
        finally:
            self._busy.logs = False
        return len(text)

    def end_line(self, run_id: str) -> None:
        """Log what a run has left on an unfinished line."""
        rest = self._rest.pop(run_id, "")
        if rest:
            LOGGER.info("%s", rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def watch_prints() -> None:
    """Put Printed in front of `sys.stdout`, unless it is there."""
    if not isinstance(sys.stdout, Printed):
        sys.stdout = Printed(sys.stdout)


def end_prints(run_id: str) -> None:
    """The run has ended."""
    if isinstance(sys.stdout, Printed):
        sys.stdout.end_line(run_id)
