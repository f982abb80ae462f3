"""The child's end of the channel, what it prints, and how its main thread is interrupted."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from penstock.events.instants import Instant
from penstock.flows.errors import RunInterrupted
from penstock.services.worker.frames import Frame, Log, encode

LONGEST_LINE = 32_768  # characters; longer ones are cut into several
_READ = 1 << 18


class Interruption:
    """Raises in the main thread what another thread asks for, also out of `time.sleep` and blocking system calls.

    Done by a signal, since only that wakes a thread from a system call. While the main thread is `shielded` (it writes
    a frame, it waits for the journal) the exception waits: half a frame would ruin the channel.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident or 0
        self._armed = False
        self._shields = 0
        self._due: type[RunInterrupted] | None = None
        signal.signal(signal.SIGUSR2, self._on_signal)

    def arm(self) -> None:
        """From here on the main thread runs code that may be interrupted.  Raises what was asked for before."""
        self._armed = True
        self._raise_due()

    def disarm(self) -> None:
        """The code has ended; what was asked for and not raised is forgotten."""
        self._armed, self._due = False, None

    def ask(self, kind: type[RunInterrupted]) -> None:
        """From any thread: raise `kind` in the main thread as soon as that is safe."""
        self._due = kind
        signal.pthread_kill(self._main, signal.SIGUSR2)

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            self._shields += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if threading.get_ident() == self._main:
            self._shields -= 1
            self._raise_due()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._raise_due()

    def _raise_due(self) -> None:
        due = self._due
        if due is not None and self._armed and not self._shields:
            self._due = None
            raise due


class Channel:
    """Frames over what were stdin and stdout. File descriptors 1 and 2 afterwards lead to the parent's log."""

    def __init__(self, interruption: Interruption) -> None:
        self._shield = interruption
        self._in, self._out = os.dup(0), os.dup(1)
        _point_to_null(0)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.run_id = ""  # of the run that output belongs to
        self.forked = False
        os.register_at_fork(after_in_child=self._let_go)

    def read(self) -> bytes:
        """What the parent sent; empty when it has gone."""
        return os.read(self._in, _READ)

    def send(self, frame: Frame) -> None:
        """Write a whole frame, from any thread; waits while the parent does not read.

        A forked process sends nothing.
        """
        if self.forked:
            return
        body = memoryview(encode(frame))
        with self._shield, self._lock:
            while body:
                body = body[os.write(self._out, body) :]

    def log(self, level: str, text: str, at: Instant | None = None) -> None:
        """Send a line, cleaned of what databases refuse. In a forked process it goes out raw."""
        line = text.replace("\0", "␀").encode("utf-8", "replace").decode()
        if self.forked:
            os.write(2, line.encode() + b"\n")
            return
        moment = time.time_ns() // 1_000 if at is None else at
        for start in range(0, max(len(line), 1), LONGEST_LINE):
            self.send(Log(run_id=self.run_id, at=moment, level=level, line=line[start : start + LONGEST_LINE]))

    def _let_go(self) -> None:
        """In a process that user code forked: the channel belongs to the parent process alone."""
        self.forked = True
        _point_to_null(self._in)
        _point_to_null(self._out)


class Printed(io.TextIOBase):
    """`sys.stdout` and `sys.stderr` of a child: each line becomes a log line of the run."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, log: Callable[[str, str], None], level: str, shield: Interruption) -> None:
        self._log, self._level, self._shield = log, level, shield
        self._lock = threading.RLock()
        self._rest = ""
        self.buffer = io.FileIO(2, "w", closefd=False)  # bytes go where the output of subprocesses goes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        with self._shield, self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._log(self._level, line)
            if len(self._rest) > LONGEST_LINE:
                self.end_line()
        return len(text)

    def end_line(self) -> None:
        """Send what stands without a line end."""
        with self._shield, self._lock:
            if self._rest:
                rest, self._rest = self._rest, ""
                self._log(self._level, rest)


class LogLines(logging.Handler):
    """Log records as log lines of the run."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.log(record.levelname, self.format(record), int(record.created * 1_000_000))
        except Exception:  # as logging asks of its handlers: a record that cannot be formatted is told and passed over
            self.handleError(record)


class Output:
    """Everything the user's code says, caught. `begin` and `end` bound what belongs to one run."""

    def __init__(self, channel: Channel, shield: Interruption) -> None:
        self._channel = channel
        self._streams = Printed(channel.log, "INFO", shield), Printed(channel.log, "WARNING", shield)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LogLines(channel)])
        faulthandler.enable(file=2)
        self.begin("")

    def begin(self, run_id: str) -> None:
        """What comes now belongs to this run, even if the one before replaced sys.stdout."""
        self._channel.run_id = run_id
        sys.stdout, sys.stderr = self._streams

    def end(self) -> None:
        """Send what the run left on an unfinished line; what comes now belongs to no run."""
        for stream in self._streams:
            stream.end_line()
        self.begin("")


def _point_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor, inheritable=descriptor <= 2)
    os.close(null)
