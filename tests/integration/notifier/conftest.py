"""A notifier on a real database, bus and Redis, with stand-ins for Slack and Twilio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from redis.asyncio import Redis

from penstock.automations import RetryPolicy
from penstock.automations.facts import AnyFact
from penstock.events.bus import NOTIFICATIONS, Bus, Outgoing
from penstock.services.bus import connect as connect_bus
from penstock.services.context import Context
from penstock.services.database import Database, clock, connect, migrate, tables
from penstock.services.deliveries import Message
from penstock.services.hints import Hints
from penstock.services.notifier import NotifierService
from penstock.services.rulebook import RuleBook
from penstock.services.settings import Settings
from penstock.services.standins import StandIn

RULES = """
users: [{{name: ann, phone: "+43111"}}, {{name: bob, phone: "+43222"}}]
channels:
  - {{name: ops, slack: {{channel: "#ops", token: "{{{{ secrets.SLACK }}}}"}}, base_url: "{url}", rate: unlimited}}
  - {{name: slow, slack: {{channel: "#slow", token: "{{{{ secrets.SLACK }}}}"}}, base_url: "{url}", rate: 5/1s}}
  - {{name: on-call, sms: {{account: AC1, token: "{{{{ secrets.SMS }}}}", from: "+1555", to: [user/ann, user/bob]}},
     base_url: "{url}", rate: unlimited}}
  - {{name: unset, slack: {{channel: "#x", token: "{{{{ secrets.UNSET }}}}"}}, base_url: "{url}", rate: unlimited}}
"""


@dataclass
class World:
    """Everything that a test of the notifier needs."""

    database: Database
    bus: Bus
    redis: Redis
    settings: Settings
    standin: StandIn
    made: int = 0
    contexts: list[Context] = field(default_factory=list)

    async def apply_rules(self, text: str) -> None:
        row = {"namespace": "default", "digest": "", "files": json.dumps({"rules.yaml": text}), "actor": "test"}
        async with self.database.begin() as connection:
            await connection.execute(sa.insert(tables.revision).values(created=clock.now(), **row))

    async def notify(
        self,
        channel: str = "ops",
        *,
        count: int = 1,
        wake: bool = True,
        attempts: int = 5,
        firing: bool = True,
        **message: Any,
    ) -> list[str]:
        """What the engine does: rows first, then records that wake."""
        retry = RetryPolicy(attempts=attempts, delay=10_000)
        rows = [self._row(channel, Message(**{"text": "hello", "retry": retry, **message})) for _ in range(count)]
        for row in () if firing else rows:
            row |= {"firing_id": None, "lane": None, "step": None}
        async with self.database.begin() as connection:
            await connection.execute(sa.insert(tables.delivery).values(created=clock.now()), rows)
        ids = [row["id"] for row in rows]
        if wake:
            await self.wake(*ids)
        return ids

    async def wake(self, *ids: str) -> None:
        await self.bus.ensure_topic(NOTIFICATIONS, 6)
        publisher = await self.bus.publisher()
        records = [json.dumps({"v": 1, "delivery": each, "namespace": "default"}).encode() for each in ids]
        await publisher.publish([Outgoing(NOTIFICATIONS, value, key=value) for value in records])
        await publisher.close()

    def _row(self, channel: str, message: Message) -> dict[str, Any]:
        self.made += 1
        name = f"{self.made:032x}"
        return {
            "id": name, "firing_id": f"firing-{name}", "lane": "penstock.matches/0", "step": "0", "automation": "rule",
            "channel": channel, "status": "pending", "body": message.to_json(), "nonce": "n1", "correlationid": "root",
            "causationid": "cause", "hops": 1,
        }  # fmt: skip

    async def rows(self, *ids: str) -> list[dict[str, Any]]:
        query = sa.select(tables.delivery).order_by(tables.delivery.c.id)
        if ids:
            query = query.where(tables.delivery.c.id.in_(ids))
        async with self.database.read() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def settled(self, *ids: str, within: float = 60) -> list[dict[str, Any]]:
        """The rows, once none of them is pending."""
        async with asyncio.timeout(within):
            while True:
                rows = await self.rows(*ids)
                if all(row["status"] != "pending" for row in rows):
                    return rows
                await asyncio.sleep(0.02)

    async def facts(self) -> list[AnyFact]:
        async with self.database.read() as connection:
            bodies = (await connection.execute(sa.select(tables.fact.c.body).order_by(tables.fact.c.id))).scalars()
            return [msgspec.json.decode(body, type=AnyFact) for body in bodies]

    async def outbox(self) -> list[tuple[str, dict[str, Any]]]:
        query = sa.select(tables.outbox.c.topic, tables.outbox.c.value).order_by(tables.outbox.c.id)
        async with self.database.read() as connection:
            return [(topic, json.loads(value)) for topic, value in (await connection.execute(query)).all()]

    def context(self, **settings: Any) -> Context:
        hints = Hints(self.redis)
        rulebook = RuleBook(self.database, hints, "default")
        name = f"notifier-{len(self.contexts)}"
        chosen = self.settings.model_copy(update=settings)
        self.contexts.append(Context(chosen, self.database, self.bus, self.redis, hints, rulebook, name))
        return self.contexts[-1]

    @asynccontextmanager
    async def notifier(self, **settings: Any) -> AsyncIterator[NotifierService]:
        """A notifier that does its job inside the block."""
        context = self.context(**settings)
        await context.rulebook.refresh()
        service, started = NotifierService(context), asyncio.Event()
        tasks = [asyncio.create_task(service.run(started.set)), asyncio.create_task(context.hints.run())]
        try:
            async with asyncio.timeout(60):
                await started.wait()
            yield service
        finally:
            for task in tasks:
                task.cancel()
            _, hanging = await asyncio.wait(tasks, timeout=20)
            for task in asyncio.all_tasks() if hanging else ():
                task.print_stack()
        assert not hanging
        for task in tasks:
            assert task.cancelled() or task.exception() is None


async def _open(database_url: str, bus_url: str, redis_url: str) -> AsyncIterator[World]:
    database, bus, redis = connect(database_url), await connect_bus(bus_url), Redis.from_url(redis_url)
    await migrate.upgrade(database)
    settings = Settings(bus_url=bus_url, database_url=database_url, redis_url=redis_url)
    async with StandIn() as standin:
        world = World(database, bus, redis, settings, standin)
        await world.apply_rules(RULES.format(url=standin.url))
        yield world
    await redis.aclose()
    await bus.close()
    await database.close()


@pytest.fixture
async def world(any_database_url: str, redis_bus_url: str, redis_url: str, monkeypatch: Any) -> AsyncIterator[World]:
    """On each database, with the bus on Redis."""
    monkeypatch.setenv("PENSTOCK_SECRET_SLACK", "xoxb-very-secret")
    monkeypatch.setenv("PENSTOCK_SECRET_SMS", "twilio-very-secret")
    async for each in _open(any_database_url, redis_bus_url, redis_url):
        yield each


@pytest.fixture
async def production(postgres_url: str, kafka_bus_url: str, redis_url: str, monkeypatch: Any) -> AsyncIterator[World]:
    """On PostgreSQL and Kafka."""
    monkeypatch.setenv("PENSTOCK_SECRET_SLACK", "xoxb-very-secret")
    async for each in _open(postgres_url, kafka_bus_url, redis_url):
        yield each
