"""The api service on real brokers and databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from tests.support.approvals_rows import ask
from tests.support.scale import scaled
from tests.support.served import Served, served

from penstock.automations.approval import Vote
from penstock.events.bus import EVENTS, Bus, Record, TopicPartition
from penstock.services import approvals
from penstock.services.api import ensure_owner_key
from penstock.services.bus import connect as connect_bus
from penstock.services.database import clock, connect, migrate, tables
from penstock.services.rules import Applied, apply
from penstock.services.settings import Settings

PARTITIONS = 3
RULE = "automations:\n  - name: {name}\n    when: {{event: order.placed}}\n    then: [{{emit: {{type: order.seen}}}}]\n"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Bus]:
    bus = await connect_bus(url)
    try:
        await bus.ensure_topic(EVENTS, PARTITIONS)
        yield bus
    finally:
        await bus.close()


async def read_all(bus: Bus, topic: str) -> list[Record]:
    reader, found = bus.reader(), []
    ends = {}
    for number in range(PARTITIONS):
        log = TopicPartition(topic, number)
        ends[log] = (await bus.end(log)).position
        await reader.take(log, await bus.beginning(log))
    while batch := await reader.poll(max_records=1_000, timeout=1.0):
        found += [record for records in batch.values() for record in records]
    await reader.close()
    return found


def client(api: Served) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=32)
    headers = {"Authorization": f"Bearer {api.key}"}
    return httpx.AsyncClient(base_url=api.url, headers=headers, limits=limits, timeout=30, trust_env=False)


async def test_every_event_that_was_accepted_is_on_the_bus_in_order_of_its_key(
    any_bus_url: str, postgres_url: str
) -> None:
    count = scaled(1_000, at_least=100)
    async with opened(any_bus_url) as bus, served(postgres_url, bus) as api, client(api) as http:

        async def send(subject: str) -> None:
            for number in range(count // 10):
                event = {"specversion": "1.0", "id": f"{subject}-{number}", "source": "/test", "type": "order.placed"}
                answer = await http.post("/events", json=event | {"subject": subject})
                assert answer.status_code == 202, answer.text

        await asyncio.gather(*(send(f"s{number}") for number in range(10)))
        found = [json.loads(record.value) for record in await read_all(bus, EVENTS)]
    for subject in (f"s{number}" for number in range(10)):
        ids = [event["id"] for event in found if event["subject"] == subject]
        assert ids == [f"{subject}-{number}" for number in range(count // 10)]


async def test_a_body_that_never_ends_is_refused_while_it_comes(kafka_bus_url: str, sqlite_url: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    async with opened(kafka_bus_url) as bus, served(sqlite_url, bus) as api, client(api) as http:
        try:
            answer = await http.post("/events", content=endless(), headers={"content-type": "application/json"})
            assert answer.status_code == 413
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            pass  # the service hung up while we were still sending, as it should
        assert sent < 64 << 20
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_broker_that_is_away_means_503_until_it_is_back(
    redis_server: Any, redis_bus_url: str, sqlite_url: str
) -> None:
    event = {"specversion": "1.0", "source": "/test", "type": "order.placed"}
    async with opened(redis_bus_url) as bus, served(sqlite_url, bus) as api, client(api) as http:
        assert (await http.post("/events", json=event | {"id": "1"})).status_code == 202
        await asyncio.to_thread(redis_server.stop)
        try:
            answer = await http.post("/events", json=event | {"id": "2"})
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert (await http.get("/health/ready")).status_code == 503
        finally:
            await asyncio.to_thread(redis_server.start)
        async with asyncio.timeout(30):
            while (await http.post("/events", json=event | {"id": "3"})).status_code != 202:
                await asyncio.sleep(0.1)


async def test_of_many_voters_at_once_exactly_one_decides(postgres_url: str, redis_bus_url: str) -> None:
    people = [f"user/p{number}" for number in range(12)]
    async with opened(redis_bus_url) as bus, served(postgres_url, bus) as api:
        database = api.context.database
        await ask(database, "race", approvers=tuple(people))
        await ask(database, "all", approvers=tuple(people), needs=len(people))
        race = [Vote(person, "approve" if n % 2 else "reject", "test") for n, person in enumerate(people)]
        outcomes = await asyncio.gather(*(approvals.decide(api.context, "race", vote) for vote in race))
        assert sum(outcome.decided for outcome in outcomes) == 1
        every = [Vote(person, "approve", "test") for person in people]
        outcomes = await asyncio.gather(*(approvals.decide(api.context, "all", vote) for vote in every))
        assert sorted(outcome.kind for outcome in outcomes) == ["approved", *["recorded"] * (len(people) - 1)]
        async with database.read() as connection:
            facts = (await connection.execute(sa.select(sa.func.count()).select_from(tables.fact))).scalar()
            outbox = (await connection.execute(sa.select(sa.func.count()).select_from(tables.outbox))).scalar()
        assert (facts, outbox) == (2, 2)


async def test_a_vote_and_the_deadline_at_once_decide_once(postgres_url: str, redis_bus_url: str) -> None:
    async with opened(redis_bus_url) as bus, served(postgres_url, bus) as api:
        database = api.context.database
        ids = [f"a{number}" for number in range(10)]
        for id_ in ids:
            await ask(database, id_)
        async with database.read() as connection:
            now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
        later = now + 3_600_000_000
        votes = [approvals.decide(api.context, id_, Vote("user/ann", "approve", "test")) for id_ in ids]
        await asyncio.gather(*votes, *(approvals.expire_due(api.context, later) for _ in range(3)))
        await approvals.expire_due(api.context, later)
        async with database.read() as connection:
            facts = (await connection.execute(sa.select(tables.fact.c.firing_id))).scalars().all()
        assert sorted(facts) == sorted(f"f-{id_}" for id_ in ids)


async def test_two_processes_that_start_at_once_make_one_owner_key(postgres_url: str) -> None:
    first, second = connect(postgres_url), connect(postgres_url)
    await migrate.upgrade(first)
    settings = Settings()
    keys = await asyncio.gather(*(ensure_owner_key(database, settings) for database in (first, second)))
    assert sum(key is not None for key in keys) == 1
    await asyncio.gather(first.close(), second.close())


async def test_the_same_files_applied_at_once_are_one_revision(postgres_url: str, redis_bus_url: str) -> None:
    files = {"a.yaml": RULE.format(name="one")}
    async with opened(redis_bus_url) as bus, served(postgres_url, bus) as api:
        found = await asyncio.gather(*(apply(api.context, files, "user/ann") for _ in range(8)))
        assert sum(each.changed for each in found if isinstance(each, Applied)) == 1


@pytest.mark.parametrize("path", ["approvals", "runs", "decisions", "flows", "rules", "dead-letters"])
async def test_every_list_is_there_on_postgresql(postgres_url: str, kafka_bus_url: str, path: str) -> None:
    async with opened(kafka_bus_url) as bus, served(postgres_url, bus) as api, client(api) as http:
        assert (await http.get(f"/api/v1/namespaces/default/{path}")).status_code == 200
