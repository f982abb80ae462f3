"""Nothing lost, nothing doubled, whichever process is killed or stopped past its lease, and whenever."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.fleet import Fleet, open_fleet
from tests.support.incidents import Incident, Orchestrator
from tests.support.scale import scaled

from penstock.events import Event
from penstock.services.database import tables
from penstock.services.notifier.sending import Text
from penstock.services.standins import Call, StandIn

SEED = 20260301
Deed = Callable[[str], Awaitable[None]]
FLOWS = """
import os
import time

from penstock.flows import flow, get_run_context, task


@task
def note(log: str, order: str, word: str) -> str:
    context = get_run_context()
    line = f"{context.run_id} {order} {word} {time.time_ns() // 1_000}\\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    return word


@flow
def ship(log: str, order: str) -> str:
    note(log, order, "packed")
    note(log, order, "shipped")
    return order
"""
RULES = """
channels:
  - {{name: ops, slack: {{channel: "#ops", token: "{{{{ secrets.SLACK }}}}"}}, base_url: "{url}", rate: unlimited}}
  - {{name: paced, slack: {{channel: "#ops", token: "{{{{ secrets.SLACK }}}}"}}, base_url: "{url}", rate: 100/1s}}
automations:
  - name: each-order
    when: {{event: order.placed}}
    then:
      - run: ship
        with: {{log: "{log}", order: "{{{{ event.data.order }}}}"}}
      - notify: ops
        text: "order {{{{ event.data.order }}}}"
  - name: second-scan
    when: {{event: parcel.scanned, per: subject, count: 2, within: 1h, lateness: 1h}}
    then:
      - run: ship
        with: {{log: "{log}", order: "{{{{ event.subject }}}}"}}
      - notify: ops
        text: "parcel {{{{ event.subject }}}}"
  - name: message
    when: {{event: message.wanted}}
    then: [{{notify: ops, text: "{{{{ event.subject }}}}"}}]
  - name: paced-message
    when: {{event: paced.wanted}}
    then: [{{notify: paced, text: "{{{{ event.subject }}}}"}}]
"""


@dataclass
class Shop:
    """A fleet whose workers know the flow `ship`, a stand-in for Slack, and rules that use both."""

    orchestrator: Orchestrator
    standin: StandIn
    log: Path
    locking: asyncio.Task[None] = field(init=False, repr=False)

    @property
    def fleet(self) -> Fleet:
        """Its processes."""
        return self.orchestrator.fleet

    async def open(self) -> None:
        """Start a process of each kind, and put the rules in force."""
        await self.orchestrator.start("worker", "notifier")
        await self.fleet.rig.apply(RULES.format(url=self.standin.url, log=self.log))
        self.orchestrator.running |= await self.fleet.start_all("engine")

    async def count(self, table: Any, *where: Any) -> int:
        """How many rows there are."""
        async with self.fleet.rig.context.database.read() as connection:
            query = sa.select(sa.func.count()).select_from(table).where(*where)
            return int((await connection.execute(query)).scalar_one())

    async def all_done(self, expected: int) -> None:
        """Until that many decisions are made, and everything that follows from them has come to its end."""

        async def done() -> bool:
            if await self.count(tables.firing, tables.firing.c.status == "completed") < expected:
                return False
            return not await self.count(tables.run, tables.run.c.ended.is_(None))

        await self.fleet.rig.until(done, within=120, what=f"{expected} firings and their runs to end")
        await self.fleet.rig.all_read()


@pytest.fixture
async def shop(postgres_url: str, kafka_bus_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """Leases of a few seconds, so that what a dead process held comes free soon."""
    (tmp_path / "shipping.py").write_text(FLOWS)
    settings: dict[str, Any] = {
        "ownership_lease": "PT3S",
        "run_lease": "PT3S",
        "delivery_lease": "PT6S",
        "concurrency": "3",
    }
    more = {**settings, "flows": tmp_path / "shipping.py", "secret_slack": "xoxb-of-the-tests"}
    more |= {"database_url": postgres_url, "bus_url": kafka_bus_url, "redis_url": redis_url}
    async with StandIn() as standin, open_fleet(folder=tmp_path, **more) as fleet:
        shop = Shop(Orchestrator(fleet), standin, tmp_path / "shipped.log")
        await shop.open()
        yield shop


def events_of(first: int, count: int) -> list[Event]:
    """Two orders of ten events are scans of a parcel, two scans a parcel; the others are orders."""
    made = []
    for number in range(first, first + count):
        if number % 10 < 8:
            made.append(Event(id=f"e{number}", source="/shop", type="order.placed", data={"order": f"o{number}"}))
        else:
            subject = f"p{number // 10}"
            made.append(Event(id=f"e{number}", source="/shop", type="parcel.scanned", subject=subject, data={}))
    return made


def decisions_of(count: int) -> list[tuple[str, Any, tuple[str, ...]]]:
    """What the first `count` events are to lead to."""
    orders = [("each-order", None, (f"e{number}",)) for number in range(count) if number % 10 < 8]
    scans = [
        ("second-scan", f"p{number // 10}", (f"e{number - 1}", f"e{number}"))
        for number in range(count)
        if number % 10 == 9
    ]
    return sorted(orders) + sorted(scans)


async def test_nothing_is_lost_or_doubled_while_processes_are_killed_and_stopped_at_random(shop: Shop) -> None:
    chance, orchestrator = random.Random(SEED), shop.orchestrator
    incidents: list[tuple[Deed, str, sa.Table | None]] = [
        (orchestrator.kill, "engine", tables.decision),
        (orchestrator.stop_past_its_lease, "engine", tables.decision),
        (orchestrator.kill, "worker", tables.journal),
        (orchestrator.stop_past_its_lease, "worker", tables.journal),
        (orchestrator.stop_with_children_past_its_lease, "worker", tables.journal),
        (orchestrator.kill, "notifier", None),
        (orchestrator.stop_past_its_lease, "notifier", None),
        (orchestrator.kill, "engine", tables.firing),
    ]
    each = -(-scaled(5_000) // len(incidents) // 10) * 10  # rounded up
    for number, (deed, service, measure) in enumerate(incidents):
        goal = await progress(shop, measure) + chance.randint(1, each // 2)
        await shop.fleet.rig.publish(events_of(number * each, each))
        await shop.fleet.rig.until(partial(reached, shop, measure, goal), what=f"progress before the end of {service}")
        await deed(service)
    count = each * len(incidents)
    await shop.all_done(len(decisions_of(count)))
    await orchestrator.retire()
    orchestrator.assert_nobody_fell()
    assert await shop.fleet.rig.decisions() == decisions_of(count)
    await assert_each_decision_has_one_run_that_completed(shop)
    await assert_tasks_in_the_journal_were_not_run_again(shop)
    await assert_each_delivery_was_sent_once_but_for_those_in_flight(shop)


async def test_a_crash_between_slacks_answer_and_our_record_repeats_the_call_once_with_its_id(shop: Shop) -> None:
    notifier = shop.orchestrator.running["notifier"]
    killed = asyncio.Event()

    async def lock_the_record(call: Call) -> None:
        """Slack's answer goes out with the row locked: it is received, and cannot be recorded."""
        shop.standin.before_answer = None
        locked = asyncio.Event()
        shop.locking = asyncio.create_task(hold_deliveries(shop, locked, killed))
        await locked.wait()

    shop.standin.before_answer = lock_the_record
    await shop.fleet.rig.publish([Event(id="m1", source="/shop", type="message.wanted", subject="hello")])
    await shop.fleet.rig.until(lambda: waits_for_a_lock(shop), what="the notifier to record Slack's answer")
    notifier.kill()
    killed.set()
    await shop.locking
    shop.orchestrator.running["notifier"] = await shop.fleet.start("notifier")
    await shop.all_done(1)
    [row] = await shop.fleet.rig.rows(tables.delivery)
    assert [(call.id, call.text) for call in shop.standin.calls] == [(message_id(row.id), "hello")] * 2
    assert (row.status, row.epoch) == ("delivered", 2)


async def test_a_crash_before_the_request_has_left_repeats_nothing(shop: Shop) -> None:
    notifier, redis = shop.orchestrator.running["notifier"], shop.fleet.rig.context.redis

    async def claimed() -> bool:
        rows = await shop.fleet.rig.rows(tables.delivery, tables.delivery.c.owner.is_not(None))
        return bool(rows)

    await redis.client_pause(60_000, all=False)  # nobody is given a turn on the channel
    try:
        await shop.fleet.rig.publish([Event(id="m1", source="/shop", type="paced.wanted", subject="hello")])
        await shop.fleet.rig.until(claimed, what="the delivery to be claimed")
        notifier.kill()
    finally:
        await redis.client_unpause()
    assert shop.standin.calls == []
    shop.orchestrator.running["notifier"] = await shop.fleet.start("notifier")
    await shop.all_done(1)
    [row] = await shop.fleet.rig.rows(tables.delivery)
    assert [(call.id, call.text) for call in shop.standin.calls] == [(message_id(row.id), "hello")]
    assert row.status == "delivered"
    assert row.epoch > 1


async def hold_deliveries(shop: Shop, locked: asyncio.Event, until: asyncio.Event) -> None:
    """Keep all rows of deliveries locked; a statement now and then keeps the transaction from being given up."""
    async with shop.fleet.rig.context.database.begin() as connection:
        await connection.execute(sa.select(tables.delivery.c.id).with_for_update())
        locked.set()
        while not until.is_set():
            await connection.execute(sa.select(1))
            await asyncio.sleep(0.05)


async def waits_for_a_lock(shop: Shop) -> bool:
    """Whether somebody waits to write a delivery."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE 'UPDATE delivery SET%'"
    )
    async with shop.fleet.rig.context.database.read() as connection:
        return bool((await connection.execute(query)).scalar_one())


async def progress(shop: Shop, measure: sa.Table | None) -> int:
    """How much there is of what a service does: rows of its table, or calls of Slack."""
    return len(shop.standin.calls) if measure is None else await shop.count(measure)


async def reached(shop: Shop, measure: sa.Table | None, goal: int) -> bool:
    """Whether there is that much; no process may have fallen meanwhile."""
    shop.orchestrator.assert_nobody_fell()
    return await progress(shop, measure) >= goal


async def assert_each_decision_has_one_run_that_completed(shop: Shop) -> None:
    rig = shop.fleet.rig
    decisions = {row.id for row in await rig.rows(tables.decision)}
    runs = await rig.rows(tables.run)
    assert Counter(run.firing_id for run in runs) == Counter(decisions)
    assert Counter(run.state for run in runs) == {"completed": len(decisions)}
    ends = await rig.rows(tables.run_event, tables.run_event.c.state == "completed")
    assert Counter(end.run_id for end in ends) == Counter(run.id for run in runs)


async def assert_tasks_in_the_journal_were_not_run_again(shop: Shop) -> None:
    """A run in flight at an incident may do one task twice: the one that was not in the journal yet."""
    runs = {run.id: run for run in await shop.fleet.rig.rows(tables.run)}
    done: dict[tuple[str, str], list[int]] = defaultdict(list)
    for line in shop.log.read_text().splitlines():
        run, order, word, at = line.split()
        assert order == json.loads(runs[run].parameters)["order"]
        done[run, word].append(int(at))
    assert set(done) == {(run, word) for run in runs for word in ("packed", "shipped")}
    journal = {(row.run_id, json.loads(row.result)): row for row in await shop.fleet.rig.rows(tables.journal)}
    assert set(journal) == set(done)
    in_flight = held_at_incidents(shop, "worker")
    assert in_flight, "no worker had a run when it was killed or stopped: nothing was tried"
    for (run, word), times in done.items():
        assert len(times) == 1 or (run in in_flight and runs[run].epoch > 1), (run, word, times)
        assert max(times) <= journal[run, word].ended, f"{word} of run {run} was done again after it was in the journal"


async def assert_each_delivery_was_sent_once_but_for_those_in_flight(shop: Shop) -> None:
    deliveries = {message_id(row.id): row for row in await shop.fleet.rig.rows(tables.delivery)}
    decisions = {row.id for row in await shop.fleet.rig.rows(tables.decision)}
    assert held_at_incidents(shop, "notifier"), "no notifier had a delivery when it was killed or stopped"
    assert Counter(row.firing_id for row in deliveries.values()) == Counter(decisions)
    assert Counter(row.status for row in deliveries.values()) == {"delivered": len(decisions)}
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in shop.standin.calls:
        calls[call.id].append(call)
    assert set(calls) == set(deliveries)
    for id_, made in calls.items():
        assert {call.text for call in made} == {json.loads(deliveries[id_].body)["text"]}
        if len(made) > 1:
            assert_repeated_after_an_incident(shop, deliveries[id_], made)


def assert_repeated_after_an_incident(shop: Shop, row: Any, calls: list[Call]) -> None:
    """Slack had the first call and its process was killed, or stopped past its lease, before it could record it.

    (A process stopped while its bytes were leaving lets them go when it goes on, after its successor's.)
    """
    incidents = [each for each in shop.orchestrator.incidents if each.service == "notifier" and row.id in each.held]
    assert incidents, f"delivery {row.id} was sent {len(calls)} times, and was in no victim's hands"
    assert row.epoch > 1
    for earlier, later in pairwise(calls):
        assert any(explains(each, earlier, later) for each in incidents), (row, incidents, calls)


def explains(incident: Incident, earlier: Call, later: Call) -> bool:
    """Whether the repeat is the incident's; what a victim had sent may arrive a moment after its death."""
    between = earlier.at < incident.at + 1.0 <= later.at
    return between or (incident.what == "stopped" and incident.at <= earlier.at)


def held_at_incidents(shop: Shop, service: str) -> set[str]:
    """Ids of the rows that were in a victim's hands."""
    return {id_ for each in shop.orchestrator.incidents if each.service == service for id_ in each.held}


def message_id(delivery: str) -> str:
    """The client message id that Slack is given."""
    return Text(delivery, "", None, {}).client_id
