"""The process that a `process` pool forks its children from: it has imported what they need, and runs no run itself.

Started as `python -m penstock.services.worker.template FD MODULE…`; FD is a Unix socket to the worker. For each order
it forks a child (child.py), whose stdin, stdout and stderr are the three descriptors that came with the order, and it
says how each of them ended. It imports nothing of the server, and forks from its only thread.

Importing a user's module may start threads; a fork takes locks along that they hold, and not the threads that would
let go of them. Such a process is not forked from: it says so and leaves, and its successor is started without modules,
so that each child imports them for itself.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress

from penstock.flows.load import Library, load_flows
from penstock.services.worker.child import Child

ORDER = struct.Struct("!Q")  # number of the order; three descriptors come with it
REPLY = struct.Struct("!cQq")  # kind, number of the order, value
READY, THREADS, FORKED, ENDED = b"R", b"T", b"F", b"E"  # values: -, how many, process id, exit code


class Template:
    """The process: its socket to the worker, the modules it has, the children it has forked."""

    def __init__(self, to_worker: socket.socket, modules: list[str]) -> None:
        self._socket, self._modules = to_worker, modules
        self._library: Library | None = None
        self._children: dict[int, int] = {}  # process id → number of its order
        self._logs = logging.StreamHandler()

    def serve(self) -> None:
        """Import, then fork until the worker has gone."""
        if self._modules and not self._preload():
            return
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it shall interrupt the wait, through the pipe
        signal.set_wakeup_fd(wake)
        gc.freeze()  # what is here is shared with the children as long as nobody writes to it
        self._say(READY, 0, 0)
        while True:
            ready, _, _ = select.select([self._socket.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4_096)
                self._reap()
            if self._socket.fileno() in ready and not self._take(woken, wake):
                return

    def _preload(self) -> bool:
        """Import the modules.  Returns whether one may fork afterwards."""
        # As in a child: modules that call `logging.basicConfig` while they are imported change nothing.
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[self._logs])
        self._library = load_flows(self._modules)
        logging.getLogger().removeHandler(self._logs)
        count = _threads()
        if count > 1:
            self._say(THREADS, 0, count)
        return count == 1

    def _take(self, *ours: int) -> bool:
        """One order.  Returns False when the worker has gone."""
        body, descriptors, _, _ = socket.recv_fds(self._socket, ORDER.size, 3)
        if len(body) < ORDER.size or len(descriptors) != 3:
            return False
        (number,) = ORDER.unpack(body)
        pid = os.fork()
        if pid == 0:
            try:
                self._become_child(descriptors, ours)
            finally:
                os._exit(1)  # whatever happened: this process must not go on as a second template
        with suppress(OSError):  # here, too: it must be there when the worker is told
            os.setpgid(pid, pid)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[pid] = number
        self._say(FORKED, number, pid)
        return True

    def _become_child(self, descriptors: list[int], ours: tuple[int, ...]) -> None:
        os.setpgid(0, 0)  # so that it can be killed with all that it started
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        for at, descriptor in enumerate(descriptors):
            os.dup2(descriptor, at, inheritable=True)
        for descriptor in (*descriptors, *ours):
            os.close(descriptor)
        _reseed()
        Child(self._library, self._modules).serve()
        os._exit(0)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                number = self._children.pop(pid, None)
                if number is not None:  # else a process that a module started while it was imported
                    self._say(ENDED, number, os.waitstatus_to_exitcode(status))

    def _say(self, kind: bytes, number: int, value: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the worker has gone; the next read tells
            self._socket.sendall(REPLY.pack(kind, number, value))


def _threads() -> int:
    """Threads of this process, those of C libraries too where the system tells of them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def _reseed() -> None:
    """`random` does it by itself; without this all runs would draw the same numbers from numpy."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def main() -> None:
    """Serve the worker at the other end of the socket that the first argument names."""
    os.dup2(2, 1)  # what modules print while they are imported goes where their errors go
    os.set_inheritable(number := int(sys.argv[1]), False)
    Template(socket.socket(fileno=number), sys.argv[2:]).serve()


if __name__ == "__main__":
    main()
