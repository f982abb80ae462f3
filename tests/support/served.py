"""An API on a real socket, on a database and a bus that are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from tests.support.api_harness import DeafRedis

from penstock.events.bus import Bus
from penstock.services.api import ApiService, ensure_owner_key, sign_in_link
from penstock.services.context import Context
from penstock.services.database import connect, migrate
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.settings import Settings


@dataclass
class Served:
    """A running API. key: the owner's."""

    context: Context
    url: str
    key: str

    async def sign_in_url(self) -> str:
        return self.url + await sign_in_link(self.context.database, self.context.settings)


@asynccontextmanager
async def served(database_url: str, bus: Bus, **settings: Any) -> AsyncIterator[Served]:
    """Start the service as a process would, on a free port; stopped at the end."""
    database = connect(database_url)
    await migrate.upgrade(database)
    chosen = Settings(database_url=database_url, port=0, **({"rules": ()} | settings))
    hints = Hints(cast("Redis", DeafRedis()))
    book = RuleBook(database, hints, chosen.namespace)
    context = Context(chosen, database, bus, cast("Redis", DeafRedis()), hints, book, f"test-{id(database)}")
    key = await ensure_owner_key(database, chosen)
    service, started = ApiService(context), asyncio.Event()
    running = asyncio.create_task(service.run(started.set))
    following = asyncio.create_task(book.run())
    try:
        await asyncio.wait([running, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert started.is_set(), running.exception()
        yield Served(context, service.address, key or "")
    finally:
        running.cancel()
        following.cancel()
        await asyncio.wait([running, following])
        await database.close()
