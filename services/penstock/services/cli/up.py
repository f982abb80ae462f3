"""`penstock up`: every service in one process, with nothing prepared."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from penstock.automations.pools import pool_named
from penstock.events.errors import PenstockError
from penstock.services.api.keys import ensure_owner_key, sign_in_link
from penstock.services.api.service import ApiService, listen
from penstock.services.cli.client import INSTANCE_FILE
from penstock.services.cli.output import plain
from penstock.services.context import Context, Service
from penstock.services.database import connect, migrate
from penstock.services.embedded import EmbeddedRedis
from penstock.services.former import release_former
from penstock.services.processes import configure_logging, run_until_signalled
from penstock.services.project import load_settings
from penstock.services.rule_files import REMEDY, RulesWatcher
from penstock.services.settings import Settings
from penstock.services.wiring import SERVICES, open_context, run_services
from penstock.services.worker.presence import tried
from penstock.services.worker.service import WorkerService

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_SETTLE = 20.0  # seconds that the greeting waits for the rules at most
_LOOK = 0.05  # seconds between two looks
KEY_FILE = "owner.key"
_console = Console(stderr=True, highlight=False, soft_wrap=True)


class AlreadyRunningError(PenstockError):
    """Another `penstock up` holds this data directory."""


class DataFolderError(PenstockError):
    """The data directory cannot be made or written."""


async def up(
    settings: Settings,
    hurry: asyncio.Event | None = None,
    around: Callable[[Context], AbstractAsyncContextManager[None]] | None = None,
) -> None:
    """Run everything until cancelled.

    hurry: as in Context.  around: entered before the services start, left when they have stopped.
    """
    folder = settings.data_dir
    _make(folder)
    with _only_one(folder):
        listen(settings).close()  # refused before anything is started
        async with AsyncExitStack() as stack:
            complete = await stack.enter_async_context(_prepared(settings))
            context = await stack.enter_async_context(open_context(complete, hurry))
            if around is not None:
                await stack.enter_async_context(around(context))
            key = await ensure_owner_key(context.database, complete)
            if key is not None:
                _write_secret(folder / KEY_FILE, key)
            link = await sign_in_link(context.database, complete)
            greeting: list[asyncio.Task[None]] = []

            def started(context: Context, services: dict[str, Service]) -> None:
                greeting.append(asyncio.create_task(_greet_in_time(context, services, link)))

            try:
                await run_services(context, list(SERVICES), started=started, restart=True)
            finally:
                for task in greeting:
                    task.cancel()
                (folder / INSTANCE_FILE).unlink(missing_ok=True)


async def _greet_in_time(context: Context, services: dict[str, Service], link: str) -> None:
    """Say that Penstock is up once its services follow the rules of the folder, or these were refused."""
    api, worker = services["api"], services["worker"]
    assert isinstance(api, ApiService)  # noqa: S101 -- `wiring` made them
    assert isinstance(worker, WorkerService)  # noqa: S101
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE):
            await _settled(context, api.watcher, [services["scheduler"], services["sensors"]])
    _write_instance(context.settings.data_dir, api.address)
    where = api.address + link if link.startswith("/") else link
    _greet(context, api.address, where, rules_lines(context, api.watcher) + flows_lines(worker))


async def _settled(context: Context, watcher: RulesWatcher, followers: Sequence[Service]) -> None:
    """Until the files are applied or refused, and every service follows the revision in force."""
    handled = False

    async def look() -> None:
        nonlocal handled
        handled = await watcher.look()
        await context.rulebook.refresh()

    def follow() -> bool:
        return all(getattr(each, "revision", None) == context.rulebook.current.id for each in followers)

    while True:
        if await tried("rules.waiting", look) and handled and follow():
            return
        await asyncio.sleep(_LOOK)


def rules_lines(context: Context, watcher: RulesWatcher) -> list[str]:
    """What came of the rule files, for the banner."""
    revision, problems = context.rulebook.current, watcher.problems
    in_force = f"revision {revision.id} is in force" if revision.id else "no rules are in force"
    if watcher.missing and not problems:
        missing = ", ".join(str(folder) for folder in watcher.missing)
        return [f"  rules       none: the folder {missing} is missing; {REMEDY}; {in_force}"]
    if problems:
        return [f"  rules       refused; {in_force}", *(f"    {problem}" for problem in problems)]
    count = len(revision.rules.rules)
    automations = f"{count} automation{'' if count == 1 else 's'}"
    return [f"  rules       {', '.join(context.settings.rules)}   {in_force}, {automations}"]


def flows_lines(worker: WorkerService) -> list[str]:
    """What can be run, and what cannot be used and why, for the banner."""
    problems = (f"    {problem.module}: {problem.reason.strip()}" for problem in worker.problems)
    return [f"  flows       {', '.join(worker.flows) or 'none'}", *problems]


@asynccontextmanager
async def _prepared(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with every URL filled in: what is not given is started here."""
    redis: EmbeddedRedis | None = None
    urls: dict[str, str] = {}
    if not settings.redis_url or not settings.bus_url:
        redis = EmbeddedRedis(settings.data_dir / "redis")
        await redis.start()
        urls = {"redis_url": settings.redis_url or redis.url, "bus_url": settings.bus_url or redis.url}
    if not settings.database_url:
        urls["database_url"] = f"sqlite+aiosqlite:///{(settings.data_dir / 'state.db').resolve()}"
    complete = settings.model_copy(update=urls)
    database = connect(complete.database_url)
    try:
        await migrate.upgrade(database)
        if not settings.database_url:  # our own file, under the lock of its directory: nobody else can be alive
            await release_former(database)
    finally:
        await database.close()
    keeping = asyncio.create_task(redis.keep()) if redis is not None else None
    try:
        yield complete
    finally:
        if redis is not None and keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
            await redis.stop()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "lock").touch()
    except OSError as error:
        raise DataFolderError(
            f"{folder}: everything is kept there, but it cannot be used ({error.strerror});"
            " choose another folder with --data-dir or PENSTOCK_DATA_DIR"
        ) from None


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunningError(
                f"another `penstock up` is running on {folder}; stop it, or start a second one beside it with"
                " another --data-dir and another --port"
            ) from None
        yield


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _write_instance(folder: Path, url: str) -> None:
    content = {"url": url, "key_file": str((folder / KEY_FILE).resolve()), "pid": os.getpid()}
    temporary = folder / f"{INSTANCE_FILE}.new"
    temporary.write_text(json.dumps(content))
    temporary.replace(folder / INSTANCE_FILE)


def _greet(context: Context, url: str, link: str, lines: Sequence[str]) -> None:
    _console.print(f"[bold]Penstock is up[/] at {url}")
    _console.print(f"  approvals   {url}/approvals")
    _console.print(f"  sign in     {link}   (once)")
    for line in lines:
        _console.print(plain(line), markup=False)
    _console.print("  Ctrl-C stops it; everything is kept under " + str(context.settings.data_dir))


@app.command()
def main(
    port: Annotated[int | None, typer.Option(help="where HTTP listens; 0 takes any free port")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="where everything is kept (default: .penstock)")] = None,
) -> None:
    """Start every service in one process: SQLite, and a redis-server of its own. Ctrl-C stops it."""
    chosen: dict[str, Any] = {
        name: value for name, value in {"port": port, "data_dir": data_dir}.items() if value is not None
    }
    settings = load_settings(**chosen)
    configure_logging(settings.log_level, json=settings.log_json)
    hurry = asyncio.Event()
    run_until_signalled(up(settings, hurry), hurry=hurry, grace=pool_named(settings.pools, settings.pool).grace)
    _console.print(f"stopped; everything is kept under {settings.data_dir}")
