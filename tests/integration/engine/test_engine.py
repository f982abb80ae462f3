"""The engine on both pairs: what it decides, and that it decides it once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.rig import Rig, open_rig
from tests.support.trimming import remove_records

from penstock.automations.facts import ApprovalDecided, StepSucceeded
from penstock.events import Event, bus
from penstock.events.bus import Outgoing
from penstock.events.errors import BusUnavailableError
from penstock.services import hints
from penstock.services.database import tables
from penstock.services.database.records import tell_firing
from penstock.services.engine.relay import Relay

ONE = """
channels: [{name: ops, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}, rate: unlimited}]
automations:
  - name: large-order
    when: {event: order.placed, where: {data: {amount: [{numeric: [">", 500]}]}}, per: subject}
    then:
      - notify: ops
        text: "{{ event.subject }}: {{ event.data.amount }}"
      - approve: {ask: "Ship {{ event.subject }}?", approvers: [user/owner], four_eyes: false}
      - run: ship
        with: {order: "{{ event.subject }}", amount: "{{ event.data.amount }}"}
        queue: express
        priority: 7
      - emit: {type: order.shipped, subject: "{{ event.subject }}"}
"""
TOLD = """- notify: ops
        text: "{{ event.subject }}: {{ event.data.amount }}"
      """
COUNTED = """
automations:
  - name: burst
    when: {event: login.failed, per: subject, count: 3, within: 1h, lateness: 1h}
    then: [{emit: {type: burst.seen, subject: "{{ event.subject }}"}}]
"""


def order(number: int, amount: int = 900) -> Event:
    return Event(id=f"o{number}", source="/shop", type="order.placed", subject=f"A-{number}", data={"amount": amount})


def failed_login(number: int, who: str) -> Event:
    return Event(id=f"l{number}", source="/web", type="login.failed", subject=who)


async def test_a_matching_event_is_decided_once_and_its_first_step_is_out_with_it(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    await rig.publish([order(1), order(2, amount=20), order(1)])
    assert await rig.wait_for_decisions(1) == [("large-order", "A-1", ("o1",))]
    await rig.all_read()
    assert await rig.decisions() == [("large-order", "A-1", ("o1",))]
    [delivery] = await rig.rows(tables.delivery)
    assert json.loads(delivery.body)["text"] == "A-1: 900"
    assert (delivery.channel, delivery.status) == ("ops", "pending")
    [wake_up] = await rig.records(bus.NOTIFICATIONS)
    assert json.loads(wake_up.value)["delivery"] == delivery.id


async def test_a_firing_goes_on_with_each_fact_and_ends_completed(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    await rig.publish([order(1)])
    await rig.wait_for_decisions(1)
    [firing] = await rig.rows(tables.firing)
    await tell(rig, firing, StepSucceeded("0", {"ts": "1"}))
    [approval] = await rig.until(lambda: rig.rows(tables.approval), what="the approval")
    assert (approval.ask, approval.status) == ("Ship A-1?", "pending")
    assert await rig.rows(tables.run) == []
    await tell(rig, firing, ApprovalDecided("1", "approved", by="user/owner"))
    [run] = await rig.until(lambda: rig.rows(tables.run), what="the run")
    assert json.loads(run.parameters) == {"order": "A-1", "amount": 900}
    assert (run.queue, run.priority, run.fairness_key) == ("express", 7, '["large-order","A-1"]')
    await rig.until(lambda: rig.rows(tables.firing, tables.firing.c.status == "completed"), what="the end")
    await rig.all_read()
    shipped = [json.loads(each.value) for each in await rig.records(bus.EVENTS)][-1]
    assert (shipped["type"], shipped["hops"], shipped["correlationid"]) == ("order.shipped", 1, "o1")


async def test_the_same_fact_told_twice_changes_nothing(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    await rig.publish([order(1)])
    await rig.wait_for_decisions(1)
    [firing] = await rig.rows(tables.firing)
    for _ in range(2):
        await tell(rig, firing, StepSucceeded("0", {}))
    await rig.until(lambda: rig.rows(tables.approval), what="the approval")
    await rig.until(lambda: nothing(rig, tables.fact), what="the inbox to be empty")
    assert len(await rig.rows(tables.approval)) == 1


async def test_counted_events_fire_per_key_and_a_redelivery_counts_once(rig: Rig) -> None:
    await rig.apply(COUNTED)
    await rig.start_engine()
    events = [failed_login(number, who) for number, who in enumerate(["ann", "bob", "ann", "ann", "bob"])]
    await rig.publish([each for each in events for _ in range(2)])
    assert await rig.wait_for_decisions(1) == [("burst", "ann", ("l0", "l2", "l3"))]
    await rig.publish([failed_login(9, "bob")])
    assert (await rig.wait_for_decisions(2))[1] == ("burst", "bob", ("l1", "l4", "l9"))


async def test_windows_survive_the_end_of_an_engine_and_identities_survive_a_firing(rig: Rig) -> None:
    await rig.apply(COUNTED)
    first = await rig.start_engine()
    await rig.publish([failed_login(1, "ann"), failed_login(2, "ann")])
    await rig.until(lambda: rig.rows(tables.state), what="the window")
    await rig.stop(first)
    await rig.publish([failed_login(3, "ann")])
    await rig.start_engine()
    assert await rig.wait_for_decisions(1) == [("burst", "ann", ("l1", "l2", "l3"))]
    await rig.publish([failed_login(3, "ann"), failed_login(4, "ann"), failed_login(5, "ann")])
    await rig.all_read()
    assert len(await rig.decisions()) == 1
    await rig.publish([failed_login(6, "ann")])
    assert (await rig.wait_for_decisions(2))[1] == ("burst", "ann", ("l4", "l5", "l6"))


async def test_poison_goes_to_the_dead_letters_and_the_line_goes_on(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    publisher = await rig.context.bus.publisher()
    await rig.context.bus.ensure_topic(bus.EVENTS, 3)
    bad = [b"{not json", b'{"id":"1","source":"s"}', b'{"id":"2","source":"s","type":"penstock.run.completed"}']
    bad.append(b'{"id":"3","source":"s","type":"t","data":"\\u0000"}')
    await publisher.publish([Outgoing(topic=bus.EVENTS, key=b"A-1", value=each) for each in bad])
    await publisher.close()
    await rig.publish([order(1)])
    await rig.wait_for_decisions(1)
    await rig.all_read()
    letters = [json.loads(each.value) for each in await rig.records(bus.DEAD_LETTER)]
    assert sorted(each["value"].get("text", "") for each in letters) == sorted(each.decode() for each in bad)
    assert all(each["reason"] and each["origin"]["topic"] == bus.EVENTS for each in letters)


async def test_what_the_database_refuses_is_found_alone_in_its_batch(rig: Rig) -> None:
    """PostgreSQL's text has no NUL; here a template makes one, in the middle of a batch of good events."""
    ask = """'{{ "\\x00" if event.data.code == 0 else "Ship?" }}'"""
    await rig.apply(ONE.replace(TOLD, "").replace('"Ship {{ event.subject }}?"', ask), flows=["ship"])
    events = [order(number) for number in range(20)]
    coded = [each.model_copy(update={"data": {"amount": 900, "code": each.id != "o7"}}) for each in events]
    await rig.publish(coded)
    await rig.start_engine()
    refused = [] if rig.context.database.is_sqlite else ["o7"]
    await rig.wait_for_decisions(20 - len(refused))
    await rig.all_read()
    assert len(await rig.decisions()) == 20 - len(refused)
    letters = [json.loads(each.value) for each in await rig.records(bus.DEAD_LETTER)] if refused else []
    assert [json.loads(each["value"]["text"])["id"] for each in letters] == refused


async def test_an_engine_whose_partitions_were_taken_changes_nothing_more(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    await rig.publish([order(1)])
    await rig.wait_for_decisions(1)
    async with rig.context.database.begin() as connection:
        taken = sa.update(tables.position).where(tables.position.c.topic == bus.EVENTS)
        await connection.execute(taken.values(epoch=tables.position.c.epoch + 1, owner="another", lease_until=2**62))
    await rig.publish([order(2)])
    await asyncio.sleep(1.5)  # long enough for a commit that must not happen
    assert len(await rig.decisions()) == 1
    async with rig.context.database.begin() as connection:
        await connection.execute(taken.values(owner=None, lease_until=0))
    assert (await rig.wait_for_decisions(2))[1] == ("large-order", "A-2", ("o2",))


async def test_a_rule_that_is_applied_later_decides_from_a_committed_place_on(rig: Rig) -> None:
    await rig.apply(COUNTED)
    await rig.start_engine()
    await rig.publish([order(1)])
    await rig.all_read()
    number = await rig.apply(ONE + COUNTED.split("automations:")[1], flows=["ship"])
    await rig.publish([order(2)])
    assert await rig.wait_for_decisions(1) == [("large-order", "A-2", ("o2",))]
    changes = await rig.rows(tables.partition_revision, tables.partition_revision.c.revision == number)
    assert changes


async def test_a_gap_is_raised_with_both_offsets(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    engine = await rig.start_engine()
    await rig.publish([order(number) for number in range(30)])
    await rig.wait_for_decisions(30)
    await rig.all_read()
    await rig.stop(engine)
    before = {
        row.partition: row.position for row in await rig.rows(tables.position, tables.position.c.topic == bus.EVENTS)
    }
    async with rig.context.database.begin() as connection:
        back = sa.update(tables.position).where(tables.position.c.topic == bus.EVENTS, tables.position.c.position > 0)
        await connection.execute(back.values(position=1))
    await remove_records(rig.context.settings.bus_url, bus.EVENTS, before)
    await rig.start_engine()
    await rig.until(lambda: gaps(rig), what="penstock.engine.gap")
    event = (await gaps(rig))[0]
    assert event["data"]["wanted"] == 1
    assert event["data"]["found"] > 1
    await rig.publish([order(100)])
    await rig.wait_for_decisions(31)


async def gaps(rig: Rig) -> list[dict[str, Any]]:
    events = [json.loads(each.value) for each in await rig.records(bus.SYSTEM)]
    return [each for each in events if each["type"] == "penstock.engine.gap"]


async def nothing(rig: Rig, table: sa.Table) -> bool:
    return not await rig.rows(table)


async def tell(rig: Rig, firing: Any, fact: StepSucceeded | ApprovalDecided) -> None:
    async with rig.context.database.begin() as connection:
        await tell_firing(
            connection,
            namespace=firing.namespace,
            firing_id=firing.id,
            lane=firing.lane,
            fact=msgspec.json.encode(fact),
        )
    await rig.context.hints.give(hints.FACTS)


async def test_a_firing_whose_timer_cannot_be_handled_is_buried_and_the_others_go_on(rig: Rig) -> None:
    await rig.apply(ONE, flows=["ship"])
    await rig.start_engine()
    await rig.publish([order(1), order(2)])
    await rig.wait_for_decisions(2)
    await rig.all_read()
    first, second = await rig.rows(tables.firing)
    async with rig.context.database.begin() as connection:
        broken = sa.update(tables.firing).where(tables.firing.c.id == first.id)
        await connection.execute(broken.values(body='{"no": "firing"}', wake_at=1))
    buried = (tables.firing.c.id == first.id, tables.firing.c.status == "dead_lettered")
    await rig.until(lambda: rig.rows(tables.firing, *buried), what="the firing to be buried")
    await tell(rig, second, StepSucceeded("0", {}))
    await rig.until(lambda: rig.rows(tables.approval), what="the other firing to go on")


async def test_consumption_pauses_above_the_ceiling_of_unsent_rows_and_goes_on_below_it(
    redis_url: str, redis_bus_url: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, relay = asyncio.Event(), Relay.relay

    async def held_up(self: Relay) -> int:
        if not blocked.is_set():
            raise BusUnavailableError("held up by the test")
        return await relay(self)

    monkeypatch.setattr(Relay, "relay", held_up)
    urls = {"database_url": sqlite_url, "bus_url": redis_bus_url, "redis_url": redis_url}
    async with open_rig(**urls, folder=tmp_path, outbox_ceiling=20, batch=10, event_partitions=1) as rig:
        await rig.apply(ONE, flows=["ship"])
        await rig.start_engine()
        await rig.publish([order(number) for number in range(2_000)])
        await rig.wait_for_decisions(10)
        await rig.until(lambda: stands_still(rig), what="the engine to pause")
        assert len(await rig.decisions()) < 2_000
        blocked.set()
        await rig.wait_for_decisions(2_000)


async def stands_still(rig: Rig) -> bool:
    before = len(await rig.decisions())
    await asyncio.sleep(1.0)  # nothing may come in this time
    return len(await rig.decisions()) == before
