"""Notices that users' code has changed on disk: the flow files that are named by path, and the modules beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

_LOOK = 1.0  # seconds between looks

Stamps = dict[str, tuple[int, int]]


def stamps(modules: Sequence[str]) -> Stamps:
    """(modification time in nanoseconds, size) of each Python file that counts; dotted names are installed code."""
    folders = {Path(name).parent for name in modules if name.endswith(".py")}
    found: Stamps = {}
    for path in sorted(each for folder in folders for each in folder.glob("*.py")):
        try:
            status = path.stat()
        except OSError:  # it has gone since it was listed
            continue
        found[str(path)] = status.st_mtime_ns, status.st_size
    return found


async def follow(modules: Sequence[str], known: Stamps, changed: Callable[[list[str]], Awaitable[None]]) -> None:
    """Call `changed` with the files that differ, once they have stood still for a look; until cancelled.

    known: the stamps from before the code was loaded, so that what changes meanwhile is seen.
    """
    latest = known
    while True:
        await asyncio.sleep(_LOOK)
        before, latest = latest, await asyncio.to_thread(stamps, modules)
        if latest != known and latest == before:
            differing = sorted(name for name in {*known, *latest} if known.get(name) != latest.get(name))
            known = latest
            await changed(differing)
