"""Rule files on disk: read by the command line, watched by the api service.

Of all api services one watches, by a lease. What is broken leaves the last good revision in force and is logged, and
told on the page; it is tried again when a file, or the list of registered flows, has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from watchfiles import awatch

from penstock.automations import Problem, read_texts
from penstock.events.errors import PenstockError
from penstock.events.instants import SECOND
from penstock.services.context import Context
from penstock.services.database import clock, tables
from penstock.services.rules import Refused, apply, registered_flows

_LEASE = 15 * SECOND  # microseconds
_TICK = 1_000  # milliseconds between two looks when nothing is announced
_QUIET = 0.2  # seconds for which files must not change before they are read: a save is more than one write
_log = structlog.get_logger()

Stamp = tuple[tuple[str, int, int], ...]  # (path, time of change, size) of each file


class RuleFolderError(PenstockError):
    """A directory of rule files cannot be read."""


def read_rule_files(folders: Sequence[Path]) -> dict[str, str]:
    """The texts by name, relative to their folder.  Raises RuleFolderError where a file or folder is not readable."""
    found: dict[str, str] = {}
    for folder in folders:
        if not folder.exists():
            raise RuleFolderError(f"{folder}: there is no such directory or file")
        texts, problems = read_texts(folder)
        for problem in problems:
            if problem.severity == "error":
                raise RuleFolderError(str(problem))
        for path, text in texts.items():
            name = Path(path).relative_to(folder).as_posix() if folder.is_dir() else Path(path).name
            found[name if name not in found else path] = text
    return found


class RulesWatcher:
    """Keeps the rules of one namespace as the files say; `problems` is what is wrong with them now."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._folders = [Path(folder) for folder in context.settings.rules]
        self._name = f"rules:{context.settings.namespace}"
        self._handled: tuple[Stamp, Sequence[str]] | None = None
        self.problems: tuple[Problem, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._follow()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("rules.watcher.waiting", error=str(error))
            await asyncio.sleep(1)

    async def _follow(self) -> None:
        await self.look()
        present = [folder for folder in self._folders if folder.exists()]
        if not present:
            return
        async for _ in awatch(*present, debounce=400, step=50, rust_timeout=_TICK, yield_on_timeout=True):
            await self.look()
            if present != [folder for folder in self._folders if folder.exists()]:
                return

    async def look(self) -> None:
        """Apply the files if they, or the flows that they may run, have changed since the last time."""
        if not await self._lead():
            self._handled, self.problems = None, ()
            return
        stamp = _stamp(self._folders)
        first = self._handled is None
        if (first and not stamp) or (self._handled and self._handled[0] == stamp and not self.problems):
            return
        flows = sorted(await registered_flows(self._context.database, self._context.settings.namespace))
        if self._handled == (stamp, flows):
            return
        await asyncio.sleep(_QUIET)
        if _stamp(self._folders) == stamp:  # else it is still being written: the next look takes it
            await self._apply(stamp, flows)

    async def _apply(self, stamp: Stamp, flows: Sequence[str]) -> None:
        try:
            files = read_rule_files([folder for folder in self._folders if folder.exists()])
        except RuleFolderError as error:
            self.problems = (Problem("", 1, 1, str(error)),)
            _log.error("rules.unreadable", error=str(error))
        else:
            found = await apply(self._context, files, "system")
            self.problems = found.problems if isinstance(found, Refused) else ()
            if isinstance(found, Refused):
                _log.error("rules.refused", problems=[str(problem) for problem in found.problems])
            elif found.changed:
                _log.info("rules.applied", revision=found.revision, files=len(files))
        self._handled = (stamp, flows)

    async def _lead(self) -> bool:
        """Take or keep the lease."""
        database, row, me = self._context.database, tables.lease, self._context.instance
        insert = database.insert(row).values(name=self._name, owner=me, lease_until=clock.now() + _LEASE)
        free = sa.or_(row.c.owner == me, row.c.lease_until < clock.now())
        take = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": insert.excluded.owner, "lease_until": insert.excluded.lease_until},
            where=free,
        )
        async with database.read() as connection:  # look first: a write each second would be one too many
            held = sa.select(row.c.owner).where(row.c.name == self._name, row.c.lease_until > clock.now() + _LEASE // 2)
            owner = (await connection.execute(held)).scalar()
        if owner is not None:
            return bool(owner == me)
        async with database.begin() as connection:
            return bool((await connection.execute(take)).rowcount)


def _stamp(folders: Sequence[Path]) -> Stamp:
    found = []
    for folder in folders:
        paths = [path for pattern in ("*.yaml", "*.yml") for path in folder.rglob(pattern)] if folder.is_dir() else []
        for path in [folder, *paths] if folder.is_file() else paths:
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))
