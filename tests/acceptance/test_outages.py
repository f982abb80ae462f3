"""Kafka and PostgreSQL go away under load and come back: what was acknowledged is decided, and nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy.exc import SQLAlchemyError
from tests.support.fleet import Fleet
from tests.support.load import Load, Send, events, over_http, over_the_bus
from tests.support.services.kafka import GivenKafka, Kafka
from tests.support.services.postgres import GivenPostgres, PostgresServer

from penstock.events import AsyncEmitter, Event, bus
from penstock.services.database import tables

ALL = ("api", "engine", "scheduler", "sensors", "notifier", "worker")
RULES = """
automations:
  - name: every
    when: {event: load.made}
    then: [{emit: {type: load.seen, subject: "{{ event.id }}"}}]
"""


async def decided(fleet: Fleet) -> Counter[str]:
    """How often each event was decided."""
    return Counter(json.loads(row.events)[0] for row in await fleet.rig.rows(tables.decision))


async def seen(fleet: Fleet) -> set[str]:
    """The events whose decision was carried out."""
    mappings = [json.loads(record.value) for record in await fleet.rig.records(bus.EVENTS)]
    return {each["subject"] for each in mappings if each["type"] == "load.seen"}


async def told_or_delivered(fleet: Fleet, emit: Load) -> None:
    """Straight onto the bus: what `emit` acknowledged is there once, and what is not there it has told as an error."""
    there = Counter(
        each["id"]
        for record in await fleet.rig.records(bus.EVENTS)
        if (each := json.loads(record.value))["source"] == "/emit"
    )
    assert emit.acknowledged <= set(there) <= emit.acknowledged | emit.refused
    assert {there[id_] for id_ in emit.acknowledged} == {1}
    assert bool(emit.refused) == bool(emit.errors)
    for error in emit.errors:
        assert error.startswith("Bus"), error  # BusError, or a kind of it, which says what to look at


async def survive(fleet: Fleet, outages: list[Callable[[], None]], services: Sequence[str] = ("api", "engine")) -> None:
    """Load on both doors while each outage happens; then everything acknowledged must have come through."""
    await fleet.rig.apply(RULES)
    await fleet.start_all(*services)
    async with fleet.client() as client, AsyncEmitter(fleet.environment["PENSTOCK_BUS_URL"], timeout=5) as emitter:
        loads = [Load("http", over_http(client)), Load("emit", over_the_bus(emitter))]
        running = [asyncio.create_task(load.run()) for load in loads]
        for outage in outages:
            await asyncio.gather(*(load.more() for load in loads))
            await asyncio.to_thread(outage)
        await asyncio.gather(*(load.more() for load in loads))
        for load in loads:
            load.stopping = True
        await asyncio.gather(*running)
    acknowledged = set().union(*(load.acknowledged for load in loads))
    refused = set().union(*(load.refused for load in loads))

    async def all_there() -> bool:
        try:
            return acknowledged <= set(await decided(fleet))
        except (SQLAlchemyError, OSError):  # a connection of our own that the outage has cut
            return False

    await fleet.rig.until(all_there, what="every acknowledged event to be decided")
    await fleet.rig.all_read()
    counted = await decided(fleet)
    assert set(counted.values()) == {1}
    assert set(counted) <= acknowledged | refused
    assert await seen(fleet) == set(counted)
    await told_or_delivered(fleet, loads[1])
    for error in loads[0].errors:
        assert error.startswith("503"), error
    for process in fleet.processes:
        assert process.alive, process.text()[-3000:]


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_nothing_acknowledged_is_missing_after_kafka_went_away(
    fleet: Fleet, kafka: Kafka | GivenKafka, how: str
) -> None:
    def outage() -> None:
        kafka.kill() if how == "kill" else kafka.stop()
        kafka.start()

    await survive(fleet, [outage])


async def test_emitting_onto_a_dead_bus_is_an_error_and_works_once_it_is_back(
    fleet: Fleet, kafka: Kafka | GivenKafka
) -> None:
    await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 3)
    async with AsyncEmitter(fleet.environment["PENSTOCK_BUS_URL"], timeout=5) as emitter:
        send = over_the_bus(emitter)
        before, during, after = (events(3, "emit", first=first) for first in (0, 3, 6))
        assert await send(before) == ""
        await asyncio.to_thread(kafka.kill)
        try:
            assert (await send(during)).startswith("Bus")
        finally:
            await asyncio.to_thread(kafka.start)
        await fleet.rig.until(lambda: _sent(send, after), what="the bus to take events again")
    there = {json.loads(record.value)["id"] for record in await fleet.rig.records(bus.EVENTS)}
    assert {event.id for event in (*before, *after)} <= there


async def _sent(send: Send, batch: list[Event]) -> bool:
    return await send(batch) == ""


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_nothing_acknowledged_is_missing_after_postgresql_went_away(
    fleet: Fleet, postgres: PostgresServer | GivenPostgres, how: str
) -> None:
    def outage() -> None:
        postgres.kill() if how == "kill" else postgres.stop()
        postgres.start()

    await survive(fleet, [outage, outage])


async def test_nothing_acknowledged_is_missing_after_both_went_away_at_once(
    fleet: Fleet, kafka: Kafka | GivenKafka, postgres: PostgresServer | GivenPostgres
) -> None:
    def outage() -> None:
        kafka.kill()
        postgres.kill()
        postgres.start()
        kafka.start()

    await survive(fleet, [outage], ALL)
