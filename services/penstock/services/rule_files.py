"""Rule files on disk: read by the command line, watched by the api service.

Of all api services one watches, by a lease. What is broken leaves the last good revision in force and is logged, and
told on the page; it is tried again when a file, or the list of registered flows, has changed. A folder that is missing
is broken too: rules are withdrawn by emptying it, never by a wrong path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
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
from penstock.services.rules import Applied, Refused, apply, registered_flows
from penstock.services.settings import DEFAULT_RULES

_LEASE = 15 * SECOND  # microseconds
ACTOR = "system"  # who applies what is watched
_TICK = 1_000  # milliseconds between two looks when nothing is announced
_QUIET = 0.2  # seconds for which files must not change before they are read: a save is more than one write
_MISSING = "there is no such directory or file"
REMEDY = "make it, or set PENSTOCK_RULES, or `rules:` in penstock.yaml"
_log = structlog.get_logger()

Stamp = tuple[tuple[str, int, int], ...]  # (path, time of change, size) of each file; -1, -1: there is none


class RuleFolderError(PenstockError):
    """A directory of rule files cannot be read."""


def read_rule_files(folders: Sequence[Path]) -> dict[str, str]:
    """The texts by name, relative to their folder.  Raises RuleFolderError where a file or folder is not readable."""
    found: dict[str, str] = {}
    for folder in folders:
        if not folder.exists():
            raise RuleFolderError(f"{folder}: {_MISSING}; {REMEDY}")
        texts, problems = read_texts(folder)
        for problem in problems:
            if problem.severity == "error":
                raise RuleFolderError(str(problem))
        for path, text in texts.items():
            name = Path(path).relative_to(folder).as_posix() if folder.is_dir() else Path(path).name
            found[name if name not in found else path] = text
    return found


class RulesWatcher:
    """Keeps the rules of one namespace as the files say; `problems` is what is wrong with them now.

    missing: configured folders that are not there; no problem as long as nothing was ever applied from the default one.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._folders = [Path(folder) for folder in context.settings.rules]
        self._name = f"rules:{context.settings.namespace}"
        self._handled: tuple[Stamp, Sequence[str]] | None = None
        self._looking = asyncio.Lock()
        self.problems: tuple[Problem, ...] = ()
        self.missing: tuple[Path, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled; then another process may at once."""
        try:
            while True:
                try:
                    await self._follow()
                except (SQLAlchemyError, OSError) as error:
                    _log.warning("rules.watcher.waiting", error=str(error))
                await asyncio.sleep(1)
        finally:
            await asyncio.shield(self._give_back())

    async def _follow(self) -> None:
        await self.look()
        present = [folder for folder in self._folders if folder.exists()]
        if not present:
            return
        async for _ in awatch(*present, debounce=400, step=50, rust_timeout=_TICK, yield_on_timeout=True):
            await self.look()
            if present != [folder for folder in self._folders if folder.exists()]:
                return

    async def look(self) -> bool:
        """Apply the files if they, or the flows that they may run, have changed since the last time.

        Returns False where the files are still being written, or another process watches: look again.
        """
        async with self._looking:
            return await self._look()

    async def _look(self) -> bool:
        if not await self._lead():
            self._handled, self.problems = None, ()
            return False
        stamp = _stamp(self._folders)
        first = self._handled is None
        if (first and not stamp) or (self._handled and self._handled[0] == stamp and not self.problems):
            return True
        flows = await self._known_flows()
        if self._handled == (stamp, flows):
            return True
        await asyncio.sleep(_QUIET)
        if _stamp(self._folders) != stamp:  # it is still being written: the next look takes it
            return False
        self.missing = tuple(folder for folder in self._folders if not folder.exists())
        if self.missing:
            await self._refuse_missing()
        else:
            await self._apply()
        flows = await self._known_flows()
        self._handled = (stamp, flows)
        return True

    async def _known_flows(self) -> list[str]:
        """What rules may run, with its parameters: other defaults of a deployment may make a refused rule right."""
        found = await registered_flows(self._context.database, self._context.settings.namespace)
        return sorted(f"{name} {json.dumps(schema, sort_keys=True)}" for name, schema in found.items())

    async def _refuse_missing(self) -> None:
        """The last good revision stays in force; a default folder that nobody has made yet is no mistake."""
        untouched = self._context.settings.rules == DEFAULT_RULES and not await self._applied_before()
        found = [Problem(str(folder), 1, 1, _MISSING, REMEDY) for folder in self.missing]
        self.problems = () if untouched else tuple(found)
        for folder in self.missing:
            level = _log.info if untouched else _log.error
            level("rules.folder_missing", path=str(folder), remedy=REMEDY, in_force="what was applied last")

    async def _applied_before(self) -> bool:
        """Whether the revision in force came from the watched files."""
        row = tables.revision
        query = sa.select(row.c.actor).where(row.c.namespace == self._context.settings.namespace)
        async with self._context.database.read() as connection:
            return (await connection.execute(query.order_by(row.c.id.desc()).limit(1))).scalar() == ACTOR

    async def _apply(self) -> None:
        try:
            files = read_rule_files(self._folders)
        except RuleFolderError as error:
            self.problems = (Problem("", 1, 1, str(error)),)
            _log.error("rules.unreadable", error=str(error))
            return
        found = await apply(self._context, files, ACTOR)
        told = tuple(self._placed(problem) for problem in found.problems)
        self.problems = told if isinstance(found, Refused) else ()
        for problem in told:
            level = _log.warning if problem.severity == "warning" else _log.error
            level("rules.refused" if problem.severity == "error" else "rules.warning", problem=str(problem))
        if isinstance(found, Applied) and found.changed:
            _log.info("rules.applied", revision=found.revision, files=len(files))

    def _placed(self, problem: Problem) -> Problem:
        """With the path as the settings give it, so that terminals and editors can jump there."""
        for folder in self._folders:
            path = folder / problem.file if folder.is_dir() else folder
            if path.exists() and path.name == Path(problem.file).name:
                return replace(problem, file=str(path))
        return problem

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

    async def _give_back(self) -> None:
        """Best effort: a database that is away lets the lease run out."""
        row = tables.lease
        mine = (row.c.name == self._name) & (row.c.owner == self._context.instance)
        try:
            async with asyncio.timeout(2), self._context.database.begin() as connection:
                await connection.execute(sa.delete(row).where(mine))
        except (SQLAlchemyError, OSError) as error:
            _log.info("rules.lease_left_to_run_out", error=str(error))


def _stamp(folders: Sequence[Path]) -> Stamp:
    found = []
    for folder in folders:
        if not folder.exists():
            found.append((str(folder), -1, -1))
            continue
        paths = [path for pattern in ("*.yaml", "*.yml") for path in folder.rglob(pattern)] if folder.is_dir() else []
        for path in [folder, *paths] if folder.is_file() else paths:
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))
