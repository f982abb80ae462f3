"""`penstock service NAME…`: one service (or a few) as a process of its own."""

from __future__ import annotations

import asyncio
import gc
from typing import Annotated

import structlog
import typer

from penstock.automations.pools import STOPPING, pool_named
from penstock.events.errors import PenstockError
from penstock.services.context import Context, Service
from penstock.services.database import Database, migrate, unavailable
from penstock.services.processes import configure_logging, run_until_signalled
from penstock.services.project import load_settings
from penstock.services.settings import Settings
from penstock.services.wiring import SERVICES, UnknownServiceError, open_context, run_services

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_log = structlog.get_logger()


class SchemaBehindError(PenstockError):
    """The database has not been brought to this version's schema."""


@app.command()
def main(names: Annotated[list[str], typer.Argument(metavar="NAME…", help=", ".join(SERVICES))]) -> None:
    """Run the named services until SIGTERM; PENSTOCK_BUS_URL, …_DATABASE_URL and …_REDIS_URL say where."""
    settings = load_settings()
    configure_logging(settings.log_level, json=settings.log_json)
    for name in names:
        if name not in SERVICES:
            raise UnknownServiceError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    hurry = asyncio.Event()
    grace = pool_named(settings.pools, settings.pool).grace if "worker" in names else STOPPING
    run_until_signalled(serve(settings, names, hurry), hurry=hurry, grace=grace)


async def serve(settings: Settings, names: list[str], hurry: asyncio.Event | None = None) -> None:
    """Run the named services until cancelled; ends with an exception when one fails for good."""
    async with open_context(settings, hurry) as context:
        await schema_ready(context.database)
        await run_services(context, names, started=_said, restart=False)


def _said(context: Context, services: dict[str, Service]) -> None:
    gc.collect()
    gc.freeze()  # modules and rules stay: searching them for garbage would stop everything for tenths of a second
    _log.info("process.ready", services=",".join(services), instance=context.instance)


async def schema_ready(database: Database) -> None:
    """Wait for the database, and for its schema while another process migrates it; then insist."""
    for attempt in range(120):
        try:
            if await migrate.is_current(database):
                return
            reason = "its schema is behind this version"
        except Exception as error:
            if not unavailable(error):
                raise
            reason = str(error)
        if attempt % 20 == 0:
            _log.info("database.waiting", reason=reason)
        await asyncio.sleep(0.25)
    raise SchemaBehindError(f"the database is not ready ({reason}): run `penstock db upgrade` once, then start again")
