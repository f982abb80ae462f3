"""Ends what the tests started when the tests' process is gone, however it went.

Run as `python guard.py`; it reads lines from standard input until that closes, which the kernel does for a killed
process too: `pid NUMBER` and `folder PATH` add, `gone NUMBER` removes. A parent-death signal would not do: it is sent
when the *thread* that started the service ends, and tests restart services from threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time


def main() -> None:
    """Follow the lines; at the end of input kill the processes and remove the folders that are left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        if word == "pid":
            pids.add(int(value))
        elif word == "gone":
            pids.discard(int(value))
        elif word == "folder":
            folders.append(value)
    _end(pids)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _end(pids: set[int]) -> None:
    """SIGTERM first: `docker run` hands it to its container; SIGKILL two seconds later."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        if not pids:
            return
        time.sleep(2 if number == signal.SIGTERM else 0.2)


if __name__ == "__main__":
    main()
