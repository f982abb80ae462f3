"""What runs in the pod of a Job (pods.py): its first process, and the child that the worker executes beside it.

Started as `python -m penstock.services.worker.pod`, the first process keeps the container alive as long as its child
is there, and only for so long: nobody who comes for some time, or a child that has ended however it did, ends it too.
Started with the word `child`, it is a child (child.py): the worker executes that through the cluster's API, whose
connection carries its stdin and stdout. The output of a container's first process stands in logs of the node, what is
executed beside it does not: frames hold what secrets are kept out of elsewhere.

The child holds a connection to the first process, which the kernel closes when it dies.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress

NAME = "PENSTOCK_JOB"  # the environment variable with the Job's name
PATIENCE = "PENSTOCK_JOB_PATIENCE"  # likewise: seconds until the first process gives up waiting for a child
_COMING_UP = 20.0  # seconds
_LOOK = 0.02  # seconds


def hold() -> int:
    """Wait for the child, then for its end.  Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))  # a first process that says nothing is not ended by it
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(_address())
        door.listen(1)
        door.settimeout(float(os.environ.get(PATIENCE, "60")))
        try:
            child, _ = door.accept()
        except TimeoutError:
            sys.stderr.write("no worker has come to execute a run here; it may have ended meanwhile\n")
            return 1
    with child:
        while _has_more(child):
            pass
    return 0


def attend() -> socket.socket:
    """Tell the first process that the child is there; the connection says how long.  Raises OSError."""
    until = time.monotonic() + _COMING_UP
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(_address())
        except OSError:  # it is starting
            line.close()
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK)  # the child has no loop yet, and nothing else to do
        else:
            return line


def _address() -> str:
    """In Linux's abstract namespace, which needs no directory that can be written; each pod has one of its own."""
    return f"\0penstock/{os.environ.get(NAME, '')}"


def _has_more(child: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return bool(child.recv(1))
    return False


def main() -> None:
    """See above."""
    if sys.argv[1:] != ["child"]:
        sys.exit(hold())
    from penstock.services.worker.child import Child

    with suppress(PermissionError):
        os.setsid()  # so that it leaves with all that it started; where it leads a session already, it may not
    with attend():
        Child().serve()


if __name__ == "__main__":
    main()
