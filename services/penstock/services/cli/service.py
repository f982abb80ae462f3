"""`penstock service NAME…`: one service (or a few) as a process of its own."""

from __future__ import annotations

import asyncio

import structlog

from penstock.events.errors import PenstockError
from penstock.services.context import Context, Service
from penstock.services.database import Database, migrate, unavailable
from penstock.services.processes import run_until_signalled
from penstock.services.settings import Settings
from penstock.services.wiring import SERVICES, UnknownServiceError, open_context, run_services

_log = structlog.get_logger()


class SchemaBehindError(PenstockError):
    """The database has not been brought to this version's schema."""


def main(settings: Settings, names: list[str]) -> None:
    """The command."""
    for name in names:
        if name not in SERVICES:
            raise UnknownServiceError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    run_until_signalled(serve(settings, names))


async def serve(settings: Settings, names: list[str]) -> None:
    """Run the named services until cancelled; ends with an exception when one fails for good."""
    async with open_context(settings) as context:
        await _schema_ready(context.database)
        await run_services(context, names, started=_said, restart=False)


def _said(context: Context, services: dict[str, Service]) -> None:
    _log.info("process.ready", services=",".join(services), instance=context.instance)


async def _schema_ready(database: Database) -> None:
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
