"""An API on a database of its own and a fake bus, spoken to without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
from redis.asyncio import Redis
from starlette.types import ASGIApp
from tests.support.fake_bus import FakeBus

from penstock.services.api.app import make_app
from penstock.services.api.keys import Role, create_key, create_sign_in, find_key
from penstock.services.api.publishing import GroupPublisher
from penstock.services.context import Context
from penstock.services.database import Database, connect, migrate
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.settings import Settings

BASE = "http://127.0.0.1:4180"


@dataclass
class DeafRedis:
    """Notes which hints were given."""

    published: list[str] = field(default_factory=list)

    async def publish(self, channel: str, message: bytes) -> int:
        self.published.append(channel.rsplit(":", 1)[-1])
        return 0


@dataclass
class Harness:
    """Everything a test of the API needs."""

    context: Context
    bus: FakeBus
    redis: DeafRedis
    app: ASGIApp
    publisher: GroupPublisher

    @property
    def database(self) -> Database:
        return self.context.database

    async def key(self, *roles: Role, actor: str = "user/ann", namespace: str = "default") -> str:
        async with self.database.begin() as connection:
            return await create_key(connection, namespace=namespace, actor=actor, roles=roles, by="user/test")

    def client(self, key: str | None = None, **more: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= more.pop("headers", {})
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url=more.pop("base_url", BASE), headers=headers, **more)

    async def browser(self, *roles: Role, actor: str = "user/ann") -> httpx.AsyncClient:
        """A client that has signed in by a one-time link."""
        key = await self.key(*roles, actor=actor)
        identity = await find_key(self.database, key)
        assert identity is not None
        token = await create_sign_in(self.database, identity.key_id, namespace="default", by="user/test")
        browser = self.client(headers={"Accept": "text/html"})
        answer = await browser.post("/sign-in", data={"token": token})
        assert answer.status_code == 303, answer.text
        return browser


@asynccontextmanager
async def harness(database_url: str, **settings: Any) -> AsyncIterator[Harness]:
    """A harness on an empty database."""
    database = connect(database_url)
    await migrate.upgrade(database)
    bus, redis = FakeBus(), DeafRedis()
    hints = Hints(cast("Redis", redis))
    chosen = Settings(database_url=database_url, **settings)
    book = RuleBook(database, hints, chosen.namespace)
    context = Context(chosen, database, bus, cast("Redis", redis), hints, book, "test")
    publisher = GroupPublisher(bus)
    try:
        yield Harness(context, bus, redis, make_app(context, publisher), publisher)
    finally:
        await publisher.close()
        await database.close()


def sqlite_url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'penstock.db'}"
