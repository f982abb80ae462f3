"""What every test service shares: one process on one port, with its data in a folder, started again at will."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


class ServiceMissingError(Exception):
    """A service that the tests need cannot be had here; the text is one line and says how to get it."""


class ServiceFailedError(Exception):
    """A service did not start, or is not ours to restart."""


class Guard:
    """The line to guard.py, which ends services and removes folders once this process is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def tell(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                script = Path(__file__).with_name("guard.py")
                self._process = subprocess.Popen(
                    [sys.executable, str(script)], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


GUARD = Guard()
_TAKEN: set[int] = set()


def free_port() -> int:
    """A port of the loopback that nobody listens on and that this process has not handed out yet.

    Below the range that the kernel gives to outgoing connections: else one of those could sit on the port of a server
    that is being restarted.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            if port not in _TAKEN and probe.connect_ex(("127.0.0.1", port)):
                _TAKEN.add(port)
                return port


def new_folder(name: str, owner: str | None = None) -> Path:
    """A temporary folder, removed at the end; `owner`: the user it belongs to, None for this one."""
    outer = Path(tempfile.mkdtemp(prefix=f"penstock-{name}-"))
    GUARD.tell(f"folder {outer}")
    atexit.register(shutil.rmtree, outer, ignore_errors=True)
    outer.chmod(0o755)
    folder = outer / "data"
    folder.mkdir(mode=0o700)
    if owner is not None:
        shutil.chown(folder, owner)
    return folder


def wait_until(ready: Callable[[], bool], *, within: float, what: str) -> None:
    """Ask `ready` until it says yes.  Raises ServiceFailedError after `within` seconds."""
    deadline = time.monotonic() + within
    while not ready():
        if time.monotonic() > deadline:
            raise ServiceFailedError(f"{what} was not ready within {within:g} s")
        time.sleep(0.02)


class Service:
    """One server process. Subclasses say how to begin (`_prepare`), what to run (`_command`) and when it is `ready`."""

    name = "service"
    start_within = 60.0  # seconds
    stop_within = 20.0  # seconds
    stop_signal = signal.SIGTERM

    def __init__(self, *, user: str | None = None) -> None:
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients find it."""
        raise ServiceFailedError(f"{self.name} has no URL")

    def ready(self) -> bool:
        """Whether it answers its own protocol."""
        raise ServiceFailedError(f"{self.name} cannot say whether it is ready")

    def _prepare(self, folder: Path) -> None:
        """Make its data; called once, before the first start."""

    def _command(self, folder: Path) -> Sequence[str]:
        raise ServiceFailedError(f"{self.name} has no command")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, or do nothing where it runs; returns once it answers."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Start it without waiting for an answer."""
        if self.running:
            return
        if self._folder is None:
            self.port = free_port()
            self._folder = new_folder(self.name, self._user)
            self._prepare(self._folder)
        with (self._folder.parent / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                list(self._command(self._folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                cwd=self._folder,
            )
        GUARD.tell(f"pid {self._process.pid}")
        atexit.register(self.kill)

    def wait_ready(self) -> None:
        """Return once it answers.  Raises ServiceFailedError, with the end of its log, where it does not."""
        try:
            wait_until(self._ready_or_dead, within=self.start_within, what=self.name)
        except ServiceFailedError as error:
            self.kill()
            raise ServiceFailedError(f"{error}; the end of its log:\n{self.log_tail()}") from None

    def stop(self) -> None:
        """Ask it to end, and wait; its data stays. One that does not end within `stop_within` is killed."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(timeout=self.stop_within)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def ask_to_stop(self) -> None:
        """Ask it to end, without waiting."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, to it and to every process that it started; its data stays."""
        if self._process is None:
            return
        # Stopped first: a child that it starts meanwhile would be left, waiting for a lock of one that is dead.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGSTOP)
        for process in reversed(self._family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self._family(), timeout=10)
        self._process.wait(timeout=10)
        self._forget()

    def restart(self) -> None:
        """Stop, and start on the same port with the same data."""
        self.stop()
        self.start()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        if self._folder is None:
            return ""
        text = (self._folder.parent / "log.txt").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _ready_or_dead(self) -> bool:
        if not self.running:
            raise ServiceFailedError(f"{self.name} ended while starting")
        return self.ready()

    def _family(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _forget(self) -> None:
        if self._process is not None:
            GUARD.tell(f"gone {self._process.pid}")
            self._process = None
            atexit.unregister(self.kill)


class Given:
    """Refuses what only an own service can do: mixed into services that were given by URL."""

    name = "service"

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        raise ServiceFailedError(f"{self.name} was given by URL; unset its variable so that the tests start their own")

    kill = restart = stop


def run(command: Sequence[str], *, user: str | None = None, cwd: Path | None = None) -> None:
    """Run a preparatory command.  Raises ServiceFailedError with its output."""
    done = subprocess.run(
        list(command), check=False, capture_output=True, text=True, user=user, cwd=cwd, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise ServiceFailedError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")


def is_root() -> bool:
    return os.geteuid() == 0


def in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on a loop of its own, from a thread whose own loop may be running."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # raised again by the caller's thread
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
