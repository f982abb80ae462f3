"""Several engines decide what one engine decides that reads the recorded match topic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.fleet import Fleet, Process, open_fleet
from tests.support.recorded import all_decided, decided, decided_by_one_engine, folded
from tests.support.rig import open_rig
from tests.support.scale import scaled

from penstock.events import Event, bus
from penstock.services.database import tables

RULES = """
automations:
  - name: three-warm
    when: {event: sensor.temperature, per: subject, count: 3, within: 10m, lateness: 1h}
    then: [{emit: {type: truck.warm, subject: "{{ event.subject }}"}}]
  - name: three-hot
    when:
      event: sensor.temperature
      where: {data: {celsius: [{numeric: [">", 20]}]}}
      per: data.depot
      count: 3
      within: 10m
      lateness: 1h
    then: [{emit: {type: depot.hot, subject: "{{ event.data.depot }}"}}]
"""
PARTITIONS = 6
MATCHES = tables.position.c.topic == bus.MATCHES


def readings(count: int, seed: int) -> list[Event]:
    """Out of order, over many keys, one in ten delivered twice."""
    chance = random.Random(seed)
    start = datetime.now(UTC) - timedelta(minutes=30)
    events = [
        Event(
            id=f"r{number}",
            source="/trucks",
            type="sensor.temperature",
            subject=f"truck/{chance.randrange(max(8, count // 8))}",
            time=start + timedelta(seconds=chance.uniform(0, 1_200)),
            data={"celsius": chance.randrange(40), "depot": f"d{chance.randrange(12)}"},
        )
        for number in range(count)
    ]
    return [each for event in events for each in ([event, event] if chance.random() < 0.1 else [event])]


async def publish_in_pieces(fleet: Fleet, events: Sequence[Event]) -> None:
    """Twenty at a time, each acknowledged before the next."""
    for at in range(0, len(events), 20):
        await fleet.rig.publish(events[at : at + 20])


async def owns_matches(fleet: Fleet, engine: Process) -> list[int]:
    """The match partitions that this process holds."""
    rows = await fleet.rig.rows(tables.position, MATCHES)
    return [row.partition for row in rows if f"-{engine.popen.pid}-" in (row.owner or "")]


async def test_engines_that_join_and_die_decide_what_one_engine_decides(
    postgres_url: str, kafka_bus_url: str, redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    events = readings(scaled(2_000), seed=7)
    quarter = len(events) // 4
    urls = {"database_url": postgres_url, "bus_url": kafka_bus_url, "redis_url": redis_url}
    async with open_fleet(**urls, folder=tmp_path, ownership_lease="PT2S", event_partitions=PARTITIONS) as fleet:
        await fleet.rig.apply(RULES)
        first = await fleet.start("engine")
        await publish_in_pieces(fleet, events[:quarter])
        joining = asyncio.create_task(fleet.start("engine"))
        await publish_in_pieces(fleet, events[quarter : 2 * quarter])
        second = await joining
        shared = await fleet.rig.until(lambda: owns_matches(fleet, second), what="the second engine's share")
        assert len(shared) < bus.MATCH_PARTITIONS
        dying = asyncio.create_task(publish_in_pieces(fleet, events[2 * quarter : 3 * quarter]))
        await fleet.rig.wait_for_decisions(len(await fleet.rig.decisions()) + 1)
        first.kill()
        await dying
        await publish_in_pieces(fleet, events[3 * quarter :])
        await fleet.rig.all_read()
        recorded = await fleet.rig.records(bus.MATCHES)
        await all_decided(fleet.rig, copies_of=recorded)
        many = await decided(fleet.rig)
        assert len(await owns_matches(fleet, second)) == bus.MATCH_PARTITIONS
        assert {each.partition for each in await fleet.rig.records(bus.EVENTS)} == set(range(PARTITIONS))
        assert many == await folded(fleet.rig, recorded)
    assert len(many) > len(events) // 10
    other = kafka_bus_url + "copy."
    async with open_rig(database_url=sqlite_url, bus_url=other, redis_url=redis_url, folder=tmp_path / "one") as rig:
        await rig.apply(RULES)
        assert many == await decided_by_one_engine(rig, recorded)
