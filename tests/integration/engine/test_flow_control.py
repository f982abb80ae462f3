"""What lies between a decision and its actions, live: `if`, `mode`, `storm`, resolves, and what is told of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.support.live import was_applied
from tests.support.rig import Rig

from penstock.automations.facts import ApprovalDecided
from penstock.events import Event, bus
from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.instants import MILLISECOND, SECOND
from penstock.services.database import tables
from penstock.services.database.records import tell_firing
from penstock.services.engine.dispatch import tell_storms
from penstock.services.engine.suppressions import tell_suppressed

FOR_EVER = 1 << 60
ASKS = """
automations:
  - name: ask
    when: {{event: door.opened, per: subject}}
    mode: {mode}
    then:
      - approve: {{ask: "Who is at {{{{ event.subject }}}}?", approvers: [user/owner]}}
      - emit: {{type: door.watched}}
"""
RUNS = """
automations:
  - name: look
    when: {event: door.opened, per: subject}
    mode: restart
    then: [{run: film, wait: completed}]
"""


def opened(number: int, door: str = "north") -> Event:
    return Event(id=f"d{number}", source="/doors", type="door.opened", subject=door)


async def firings(rig: Rig) -> list[str]:
    """The states of all firings, in order of their events."""
    rows = await rig.rows(tables.firing)
    found = {json.loads(row.body)["events"][0]["id"]: row.status for row in rows}
    return [f"{name} {found[name]}" for name in sorted(found)]


async def decide(rig: Rig, event: str) -> None:
    """The approval of the firing of this event is granted."""
    for row in await rig.rows(tables.firing):
        if json.loads(row.body)["events"][0]["id"] == event:
            fact = msgspec.json.encode(ApprovalDecided("0", "approved", by="user/owner"))
            async with rig.context.database.begin() as connection:
                await tell_firing(connection, namespace="default", firing_id=row.id, lane=row.lane, fact=fact)


async def become(rig: Rig, states: list[str]) -> None:
    async def there() -> bool:
        return await firings(rig) == states

    await rig.until(there, within=20, what=str(states))


async def told(rig: Rig, type_: str) -> list[dict[str, Any]]:
    await rig.all_read()
    found = [json.loads(record.value) for record in await rig.records(bus.SYSTEM)]
    return [each for each in found if each["type"] == type_]


async def begin(rig: Rig, rules: str, *events: Event, flows: tuple[str, ...] = ()) -> None:
    await rig.apply(rules, flows=list(flows))
    await rig.start_engine()
    for event in events:  # one after the other: each finds what became of those before
        await rig.publish([event])
        await rig.wait_for_decisions(int(event.id[1:]))


async def test_single_drops_what_comes_while_one_has_not_ended_and_says_so_once_a_minute(rig: Rig) -> None:
    await begin(rig, ASKS.format(mode="single"), opened(1), opened(2), opened(3))
    assert await firings(rig) == ["d1 waiting"]
    [row] = await rig.rows(tables.suppression)
    assert (row.automation, row.key, row.stage, row.count) == ("ask", '"north"', "mode", 2)
    decided = {json.loads(each.events)[0]: (each.kind, each.reason) for each in await rig.rows(tables.decision)}
    assert decided["d1"] == ("fired", "")
    assert decided["d3"] == ("suppressed", row.reason)
    assert await tell_suppressed(rig.context, FOR_EVER) == 1
    assert await tell_suppressed(rig.context, FOR_EVER) == 0
    [event] = await told(rig, "penstock.automation.suppressed")
    assert (event["subject"], event["data"]["count"], event["data"]["key"]) == ("ask", 2, "north")
    await decide(rig, "d1")
    await become(rig, ["d1 completed"])
    await rig.publish([opened(4)])
    await become(rig, ["d1 completed", "d4 waiting"])


async def test_queued_firings_take_turns_and_other_keys_do_not_wait(rig: Rig) -> None:
    await begin(rig, ASKS.format(mode="queued"), opened(1), opened(2), opened(3), opened(4, "south"))
    assert await firings(rig) == ["d1 waiting", "d2 queued", "d3 queued", "d4 waiting"]
    await decide(rig, "d1")
    await become(rig, ["d1 completed", "d2 waiting", "d3 queued", "d4 waiting"])
    await decide(rig, "d2")
    await become(rig, ["d1 completed", "d2 completed", "d3 waiting", "d4 waiting"])


async def test_keep_latest_lets_only_the_newest_wait(rig: Rig) -> None:
    await begin(rig, ASKS.format(mode="keep_latest"), opened(1), opened(2), opened(3))
    assert await firings(rig) == ["d1 waiting", "d2 cancelled", "d3 queued"]
    await decide(rig, "d1")
    await become(rig, ["d1 completed", "d2 cancelled", "d3 waiting"])


async def test_restart_cancels_the_firing_before_its_run_and_its_question(rig: Rig) -> None:
    await begin(rig, RUNS, opened(1), opened(2), flows=("film",))
    assert await firings(rig) == ["d1 cancelled", "d2 waiting"]
    assert sorted(row.state for row in await rig.rows(tables.run)) == ["cancelled", "pending"]
    [event] = await told(rig, "penstock.automation.suppressed")
    assert event["data"]["reason"].startswith("mode: restart")
    await begin(rig, ASKS.format(mode="restart"), opened(3), opened(4))
    assert sorted(row.status for row in await rig.rows(tables.approval)) == ["pending", "void"]


async def test_firings_of_one_batch_take_turns_too(rig: Rig) -> None:
    await rig.apply(RUNS, flows=["film"])
    await rig.publish([opened(number) for number in range(1, 6)])
    await rig.start_engine()
    await rig.wait_for_decisions(5)
    assert await firings(rig) == [*(f"d{number} cancelled" for number in range(1, 5)), "d5 waiting"]
    assert sorted(row.state for row in await rig.rows(tables.run)) == ["cancelled"] * 4 + ["pending"]


async def test_a_storm_over_all_keys_becomes_one_digest(rig: Rig) -> None:
    rules = """
automations:
  - name: alarm
    when: {event: door.opened, per: subject}
    storm: 3/1h
    then: [{emit: {type: alarm.rung}}]
"""
    await begin(rig, rules, *(opened(number, f"door-{number}") for number in range(1, 11)))
    kinds = [row.kind for row in await rig.rows(tables.decision)]
    assert (kinds.count("fired"), kinds.count("suppressed")) == (3, 7)
    assert len(await firings(rig)) == 3
    assert await tell_storms(rig.context, FOR_EVER) == 1
    assert await tell_storms(rig.context, FOR_EVER) == 0
    [digest] = await told(rig, "penstock.automation.storm")
    assert (digest["subject"], digest["data"]["count"]) == ("alarm", 7)


async def test_a_resolve_runs_the_actions_that_wait_for_it(rig: Rig) -> None:
    rules = """
automations:
  - name: hot
    when:
      event: oven.read
      metric: {value: data.celsius, over: 1h, stat: min, op: ">", threshold: 100, clear: 50}
    then: [{emit: {type: oven.hot}}]
    on_resolve: [{emit: {type: oven.cool, data: {at: "{{ trigger.value }}"}}}]
"""
    await rig.apply(rules)
    await rig.start_engine()
    readings = [
        Event(id="r1", source="/o", type="oven.read", data={"celsius": 120}),
        Event(
            id="r2",
            source="/o",
            type="oven.read",
            data={"celsius": 20},
        ),
    ]
    await rig.publish(readings)
    await rig.wait_for_decisions(2)
    assert sorted(row.kind for row in await rig.rows(tables.decision)) == ["fired", "resolved"]
    await rig.all_read()
    types = [json.loads(record.value)["type"] for record in await rig.records(bus.EVENTS)]
    assert sorted(types) == ["oven.cool", "oven.hot", "oven.read", "oven.read"]


@pytest.mark.parametrize("rig", ["embedded"], indirect=True)  # Kafka's logs are cut by age alone
async def test_no_absence_fires_across_events_that_were_lost(rig: Rig) -> None:
    """The log was cut below what the engine had read: the beats in between may have been there."""
    rules = """
automations:
  - name: silent
    shadow: true
    when: {absent: {event: unit.beat}, within: 60s, per: subject}
    then: [{emit: {type: unit.silent}}]
"""
    began = 1_772_000_000 * SECOND
    await rig.context.bus.ensure_topic(bus.EVENTS, 1, stamped_by_producer=True)
    await rig.apply(rules)
    await was_applied(rig, began)
    engine = await rig.start_engine()

    async def beat(number: int, at: int, type_: str = "unit.beat") -> None:
        event = Event(id=f"b{number}", source="/u", type=type_, subject="u1")
        publisher = await rig.context.bus.publisher()
        stamp = began + at * SECOND
        await publisher.publish([Outgoing(topic=bus.EVENTS, partition=0, value=event.to_json(), timestamp=stamp)])
        await publisher.close()

    async def watched() -> bool:
        return bool(await rig.rows(tables.state))

    await beat(1, 0)
    await rig.until(watched)
    await rig.stop(engine)
    for number in range(2, 6):
        await beat(number, 20 * number, "unit.other" if number == 5 else "unit.beat")
    records = await rig.records(bus.EVENTS)
    await rig.context.bus.trim(TopicPartition(bus.EVENTS, 0), records[-1].offset)  # three beats are gone
    await rig.start_engine()
    await beat(6, 159, "unit.other")  # 59 s after what is left
    await rig.until(lambda: _gaps(rig), what="the gap to be told")
    await beat(7, 170, "unit.other")
    await rig.wait_for_decisions(1)
    [row] = await rig.rows(tables.decision)
    assert row.at == began + 160 * SECOND  # a minute after the gap, and not a minute after the last beat that was read
    assert row.at % MILLISECOND == 0


async def _gaps(rig: Rig) -> bool:
    return any(json.loads(each.value)["type"] == "penstock.engine.gap" for each in await rig.records(bus.SYSTEM))
