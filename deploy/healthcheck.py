"""The containers' health check: do the bus and the database answer this service?

A service that listens to HTTP is asked itself instead (`/health/ready`, see compose.yaml). Exit code 0: yes.
"""

from __future__ import annotations

import asyncio
import os
import sys

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from penstock.events.errors import BusError
from penstock.services.bus import connect

_PATIENCE = 8.0  # seconds


async def main() -> str | None:
    """None where both answer, else a line that says which does not."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(_bus(os.environ["PENSTOCK_BUS_URL"]), _database(os.environ["PENSTOCK_DATABASE_URL"]))
    except (BusError, SQLAlchemyError, OSError, KeyError) as error:
        return repr(error)
    return None


async def _bus(url: str) -> None:
    bus = await connect(url)
    await bus.close()


async def _database(url: str) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    finally:
        await engine.dispose()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
