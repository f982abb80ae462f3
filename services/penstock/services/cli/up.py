"""`penstock up`: every service in one process, with nothing prepared."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from penstock.events.errors import PenstockError
from penstock.services.api.keys import ensure_owner_key, sign_in_link
from penstock.services.cli.client import INSTANCE_FILE
from penstock.services.context import Context, Service
from penstock.services.database import connect, migrate
from penstock.services.embedded import EmbeddedRedis
from penstock.services.processes import configure_logging, run_until_signalled
from penstock.services.project import load_settings
from penstock.services.settings import Settings
from penstock.services.wiring import SERVICES, open_context, run_services

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
KEY_FILE = "owner.key"
_console = Console(stderr=True, highlight=False, soft_wrap=True)


class AlreadyRunningError(PenstockError):
    """Another `penstock up` holds this data directory."""


async def up(settings: Settings) -> None:
    """Run everything until cancelled."""
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(folder):
        async with _prepared(settings) as complete, open_context(complete) as context:
            key = await ensure_owner_key(context.database, complete)
            if key is not None:
                _write_secret(folder / KEY_FILE, key)
            link = await sign_in_link(context.database, complete)

            def started(context: Context, services: dict[str, Service]) -> None:
                url = getattr(services["api"], "address", complete.url)
                _write_instance(folder, url)
                _greet(complete, url, url + link if link.startswith("/") else link)

            try:
                await run_services(context, list(SERVICES), started=started, restart=True)
            finally:
                (folder / INSTANCE_FILE).unlink(missing_ok=True)


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


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunningError(
                f"another `penstock up` is running on {folder}; stop it, or choose another PENSTOCK_DATA_DIR"
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


def _greet(settings: Settings, url: str, link: str) -> None:
    _console.print(f"[bold]Penstock is up[/] at {url}")
    _console.print(f"  approvals   {url}/approvals")
    _console.print(f"  sign in     {link}   (once)")
    _console.print(f"  rules       {', '.join(settings.rules)}   flows  {', '.join(settings.flows) or '(none)'}")
    _console.print("  Ctrl-C stops it; everything is kept under " + str(settings.data_dir))


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
    run_until_signalled(up(settings))
