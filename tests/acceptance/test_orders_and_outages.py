"""Delivery and outages, on both pairs, with a moved clock: neither changes what is decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.every_form import MINUTE, SECOND, START, arrival
from tests.support.live import AFTER, arriving, ticks, was_applied
from tests.support.replayed import Came, caught_up, replayed, simulated
from tests.support.rig import Rig, open_rig

from penstock.events import bus
from penstock.events.instants import Instant, format_instant

PARTITIONS = 3
ORDERED = """
defaults: {shadow: true, order: event_time, lateness: 40s}
automations:
  - name: count
    when: {event: a, per: data.room, count: 3, within: 1m}
    then: &act [{emit: {type: seen}}]
  - name: in-turn
    when: {sequence: [{event: a}, {event: b, count: 2, within: 1m}, {event: c}], within: 5m, per: data.room}
    cooldown: 1m
    then: *act
  - name: unanswered
    when: {absent: {event: b}, after: {event: a}, within: 20s, per: data.room}
    then: *act
  - name: high
    when: {event: c, metric: {value: data.value, over: 1m, stat: avg, op: ">", threshold: 6, for: 10s}, per: data.room}
    then: *act
    on_resolve: *act
  - name: other
    when: {event: [a, c], changed: data.value, per: data.room}
    debounce: 15s
    then: *act
  - name: once
    when: {event: b, count: 2, within: 1m}
    dedupe: {by: data.value, for: 20s}
    then: *act
"""
WATCHES = """
defaults: {shadow: true}
automations:
  - name: unpaid
    when: {absent: {event: order.paid}, after: {event: order.placed}, within: 4m, per: data.order}
    then: &act [{emit: {type: seen}}]
  - name: heartbeat
    when: {absent: {event: device.alive}, within: 90s, per: subject}
    then: *act
    on_resolve: *act
  - name: all-silent
    when: {absent: {event: order.placed}, within: 45s}
    then: *act
    on_resolve: *act
"""


async def open_stream(rig: Rig, rules: str, applied: Instant) -> None:
    """The topic with moved stamps, and the rules as of then."""
    await rig.context.bus.ensure_topic(bus.EVENTS, PARTITIONS, stamped_by_producer=True)
    await rig.apply(rules)
    await was_applied(rig, applied)


async def deliver(rig: Rig, events: Sequence[dict[str, Any]], end: Instant | None = None) -> None:
    """In this order of arrival; then, if need be, move the clock to `end`."""
    publisher = await rig.context.bus.publisher()
    await publisher.publish([arriving(arrival(each), each) for each in events])
    if end is not None:
        await publisher.publish(ticks(end, PARTITIONS))
    await publisher.close()


def event(number: int, type_: str, subject: str, at: Instant, arrives: Instant, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/t",
        "type": type_,
        "subject": subject,
        "time": format_instant(at),
        "recordedtime": format_instant(arrives),
        "data": data,
    }


def delivery(seed: int) -> list[dict[str, Any]]:
    """The same 300 events whatever the seed, which says how long each was under way, and to which partition."""
    chance, way = random.Random(3), random.Random(seed)
    found = []
    for number in range(300):
        at = START + chance.randrange(600) * SECOND
        type_, room, value = chance.choice("abbc"), chance.choice("xyz"), chance.randrange(10)
        arrives = at + way.randrange(40_000) * 1_000
        found.append(event(number, type_, f"s{way.randrange(20)}", at, arrives, room=room, value=value))
    return sorted(found, key=arrival)


async def test_the_same_events_in_two_orders_of_delivery_are_decided_alike(
    urls: dict[str, str], tmp_path: Path
) -> None:
    end = START + 20 * MINUTE
    found: list[Came] = []
    for seed in (1, 2):
        events = delivery(seed)
        own = {**urls, "bus_url": f"{urls['bus_url']}{seed}."}
        if found:  # a database of its own
            own["database_url"] = f"sqlite+aiosqlite:///{tmp_path / 'second.db'}"
        async with open_rig(**own, folder=tmp_path / str(seed), event_partitions=PARTITIONS) as rig:
            await open_stream(rig, ORDERED, START)
            await deliver(rig, events, end)
            await rig.start_engine()
            core = await replayed(rig, end)
            found.append((await caught_up(rig, core)).of("", end))
            assert found[-1].beside(simulated(rig, events, end).of("", end)) == {}
    assert found[0].decisions == found[1].decisions
    assert {each[0] for each in found[0].decisions.values()} == {
        "count",
        "in-turn",
        "unanswered",
        "high",
        "other",
        "once",
    }


def watched() -> list[dict[str, Any]]:
    """Twenty minutes: devices that beat each 30 s, some of which fall silent; orders, most of them paid in time."""
    chance = random.Random(5)
    found = []
    for device in range(12):
        silent = START + chance.randrange(1_200) * SECOND
        beats = [START + (device + 30 * beat) * SECOND for beat in range(40)]
        found += [("device.alive", f"d{device}", at, "") for at in beats if not silent < at < silent + 3 * MINUTE]
    for number in range(60):
        placed = START + chance.randrange(1_200) * SECOND
        found.append(("order.placed", f"o{number}", placed, f"n{number}"))
        if chance.random() < 0.7:
            found.append(("order.paid", f"o{number}", placed + chance.randrange(300) * SECOND, f"n{number}"))
    return [
        event(number, type_, subject, at - chance.randrange(3_000) * 1_000, at, order=order)
        for number, (type_, subject, at, order) in enumerate(sorted(found, key=lambda each: each[2]))
    ]


async def test_an_outage_of_every_engine_for_ten_minutes_invents_no_silence_and_misses_none(
    urls: dict[str, str], tmp_path: Path
) -> None:
    events = watched()
    first = arrival(events[0])
    stop, again, end = first + 5 * MINUTE, first + 15 * MINUTE, first + 20 * MINUTE + AFTER
    before = [each for each in events if arrival(each) < stop]
    meanwhile = [each for each in events if stop <= arrival(each) < again]
    async with open_rig(**urls, folder=tmp_path, event_partitions=PARTITIONS) as rig:
        await open_stream(rig, WATCHES, first)
        expected = simulated(rig, events, end)
        engines = [await rig.start_engine()]
        await deliver(rig, before)
        early = sum(at < stop - 2 * MINUTE for _, at, *_ in expected.decisions.values())
        await rig.wait_for_decisions(early)
        for engine in engines:
            await rig.stop(engine)
        there = len(await rig.decisions())
        await deliver(rig, meanwhile)
        assert len(await rig.decisions()) == there
        await rig.start_engine()
        await deliver(rig, [each for each in events if arrival(each) >= again], end)
        core = await replayed(rig, end)
        live = (await caught_up(rig, core)).of("", end)
        assert live.beside(expected.of("", end)) == {}
        during = [each for each in live.decisions.values() if stop < each[1] < again]
        assert {each[0] for each in during} == {"unpaid", "heartbeat", "all-silent"}
