"""What the notifier does with deliveries, seen by the stand-ins, the database and the outbox."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from penstock.automations.facts import StepFailed, StepSucceeded
from penstock.automations.secrets import placeholder
from penstock.events.bus import DEAD_LETTER, SYSTEM
from penstock.services.database import tables
from penstock.services.deliveries import Delivery, claim, put_back, update
from penstock.services.notifier.sending import RetryError, Text
from penstock.services.notifier.slack import Slack
from penstock.services.standins import Fault

from .conftest import World


async def test_a_slack_message_is_sent_once_and_its_outcome_told(world: World) -> None:
    async with world.notifier():
        (id_,) = await world.notify(text="disk is full", title="ops")
        (row,) = await world.settled()
    (call,) = world.standin.calls
    assert (call.to, call.text, call.token) == ("#ops", "*ops*\ndisk is full", "xoxb-very-secret")
    assert UUID(call.id)
    assert (row["status"], row["attempts"], row["owner"], row["lease_until"]) == ("delivered", 1, None, 0)
    (fact,) = await world.facts()
    assert isinstance(fact, StepSucceeded)
    assert (fact.step, fact.result["channel"]) == ("0", "#ops")
    ((topic, event),) = await world.outbox()
    assert (topic, event["type"], event["subject"]) == (SYSTEM, "penstock.action.succeeded", "rule")
    assert (event["correlationid"], event["causationid"], event["hops"]) == ("root", "cause", 1)
    assert event["data"]["delivery"] == id_


async def test_a_delivery_whose_wake_up_was_lost_is_found_by_the_sweep(world: World) -> None:
    async with world.notifier():
        await world.notify(wake=False)
        assert len(await world.standin.wait_for(1)) == 1


async def test_a_malformed_wake_up_does_not_stop_the_next(world: World) -> None:
    async with world.notifier():
        await world.wake("x")
        await world.notify()
        await world.settled()


async def test_an_sms_goes_to_each_recipient_once_even_when_one_has_to_be_tried_again(world: World) -> None:
    world.standin.faults = [Fault(status=503, only="+43222")]
    async with world.notifier():
        await world.notify("on-call", text="come", title="alarm")
        (row,) = await world.settled()
    assert [(call.to, call.answered) for call in world.standin.calls] == [
        ("+43111", 201), ("+43222", 503), ("+43222", 201),
    ]  # fmt: skip
    assert row["status"] == "delivered"
    assert world.standin.calls[0].text == "alarm\ncome"
    assert world.standin.calls[0].token == "twilio-very-secret"


async def test_a_crash_between_two_recipients_does_not_repeat_the_first(world: World) -> None:
    world.standin.faults = [Fault(delay=60, only="+43222")]
    await world.notify("on-call")
    async with world.notifier() as service:
        async with asyncio.timeout(30):
            while not world.standin.of("twilio"):
                await asyncio.sleep(0.02)
            while '"+43111"' not in ((await world.rows())[0]["response"] or ""):
                await asyncio.sleep(0.02)
        for task in list(service._in_hand.values()):
            task.cancel()  # as a kill would: nothing more is written
        world.standin.faults = []
        async with world.database.begin() as connection:  # and its lease runs out
            await connection.execute(sa.update(tables.delivery).values(lease_until=0))
        await world.settled()
    assert [call.to for call in world.standin.of("twilio")].count("+43111") == 1
    assert {call.to for call in world.standin.of("twilio")} == {"+43111", "+43222"}


async def test_a_passing_failure_is_tried_again_under_the_same_message_id(world: World) -> None:
    world.standin.faults = [
        Fault(status=500), Fault(error="internal_error"), Fault(status=429, retry_after=0), Fault(drop=True, delay=0),
    ]  # fmt: skip
    async with world.notifier():
        await world.notify()
        (row,) = await world.settled()
    assert row["status"] == "delivered"
    assert [call.answered for call in world.standin.calls] == [500, 0, 429, 200, 200]
    assert len({call.id for call in world.standin.calls}) == 1


async def test_a_long_retry_after_is_waited_for_by_the_row(world: World) -> None:
    world.standin.faults = [Fault(status=429, retry_after=30)]
    async with world.notifier():
        (id_,) = await world.notify()
        async with asyncio.timeout(30):
            while (await world.rows(id_))[0]["attempts"] == 0:
                await asyncio.sleep(0.02)
    (row,) = await world.rows(id_)
    async with world.database.read() as connection:
        due_in = (await connection.execute(sa.select(tables.delivery.c.due_at - tables.delivery.c.updated))).scalar()
    assert row["status"] == "pending"
    assert due_in is not None
    assert timedelta(seconds=29) < timedelta(microseconds=due_in) < timedelta(seconds=31)


async def test_a_refusal_fails_at_once_and_its_firing_is_told(world: World) -> None:
    world.standin.faults = [Fault(error="channel_not_found")]
    async with world.notifier():
        await world.notify()
        (row,) = await world.settled()
    assert (row["status"], row["attempts"], len(world.standin.calls)) == ("failed", 1, 1)
    (fact,) = await world.facts()
    assert isinstance(fact, StepFailed)
    assert "channel_not_found" in fact.error
    ((topic, event),) = await world.outbox()  # the dead letter is the firing's own affair
    assert (topic, event["type"]) == (SYSTEM, "penstock.action.failed")
    assert "channel_not_found" in event["data"]["error"]


async def test_a_delivery_without_a_firing_is_dead_lettered(world: World) -> None:
    world.standin.faults = [Fault(error="channel_not_found")]
    async with world.notifier():
        await world.notify(firing=False)
        await world.settled()
    assert await world.facts() == []
    failed, (topic, letter), dead = await world.outbox()
    assert topic == DEAD_LETTER
    assert "channel_not_found" in letter["reason"]
    assert letter["origin"] == {"topic": "penstock.notifications", "automation": "rule"}
    assert [failed[1]["type"], dead[1]["type"]] == ["penstock.action.failed", "penstock.action.dead_lettered"]
    assert dead[1]["data"]["dead_letter"] == letter["id"]


async def test_tries_are_used_up(world: World) -> None:
    world.standin.faults = [Fault(status=500, times=100)]
    async with world.notifier():
        await world.notify(attempts=3)
        (row,) = await world.settled()
    assert (row["status"], row["attempts"], len(world.standin.calls)) == ("failed", 3, 3)
    assert "given up after 3 tries" in row["error"]


async def test_an_unknown_channel_a_missing_secret_and_an_unreadable_row_fail_and_say_why(world: World) -> None:
    async with world.notifier():
        await world.notify("nobody")
        await world.notify("unset")
        (broken,) = await world.notify(wake=False)
        async with world.database.begin() as connection:
            await connection.execute(sa.update(tables.delivery).where(tables.delivery.c.id == broken).values(body="?"))
        rows = await world.settled()
    assert [row["status"] for row in rows[:2]] == ["failed", "failed"]
    assert "no channel 'nobody'" in rows[0]["error"]
    assert "PENSTOCK_SECRET_UNSET" in rows[1]["error"]


async def test_secrets_are_revealed_to_the_provider_and_to_nobody_else(world: World, capsys: Any) -> None:
    text = f"pin {placeholder('SMS', 'n1')} and {placeholder('SMS', 'forged')}"
    world.standin.faults = [Fault(error="echo: xoxb-very-secret twilio-very-secret")]
    async with world.notifier():
        await world.notify(text=text)
        await world.settled()
        world.standin.faults = []
        await world.notify(text=text)
        await world.settled()
    assert world.standin.calls[1].text == f"pin twilio-very-secret and {placeholder('SMS', 'forged')}"
    captured = capsys.readouterr()
    told = [str(row) for row in await world.rows()] + [str(body) for body in await world.outbox()]
    told += [str(await world.facts()), captured.out, captured.err]
    assert not [each for each in told if "very-secret" in each]
    assert any("echo: ••• •••" in each for each in told)


async def test_a_destination_gets_no_more_than_its_rate_and_in_order(world: World) -> None:
    ids = await world.notify("slow", count=8)
    async with world.notifier():
        rows = await world.settled()
    assert all(row["status"] == "delivered" and row["attempts"] == 1 for row in rows)
    calls = world.standin.of("slack")
    assert len(calls) == len(ids)
    for first in calls:
        assert sum(first.at <= call.at < first.at + 0.95 for call in calls) <= 6
    assert calls[-1].at - calls[0].at > 1.3


async def test_two_notifiers_send_each_delivery_once(world: World) -> None:
    async with world.notifier(), world.notifier():
        ids = await world.notify(count=120)
        rows = await world.settled()
    assert len(rows) == len(ids)
    assert len({call.id for call in world.standin.calls}) == len(world.standin.calls) == len(ids)


async def test_a_late_outcome_of_a_claim_that_was_taken_over_is_refused(world: World) -> None:
    world.standin.faults = [Fault(delay=1.0)]
    async with world.notifier():
        (id_,) = await world.notify()
        async with asyncio.timeout(30):
            while (await world.rows(id_))[0]["epoch"] == 0:
                await asyncio.sleep(0.02)
        async with world.database.begin() as connection:  # another notifier has claimed it meanwhile
            await connection.execute(sa.update(tables.delivery).values(epoch=2, owner="other", lease_until=2**60))
        await world.standin.wait_for(1)
    (row,) = await world.rows(id_)
    assert (row["status"], row["epoch"], row["owner"]) == ("pending", 2, "other")
    assert await world.facts() == []
    assert await world.outbox() == []


async def test_a_row_in_hand_is_not_claimed_again_by_the_same_process(world: World) -> None:
    world.standin.faults = [Fault(delay=1.5)]
    async with world.notifier():
        (id_,) = await world.notify()
        async with asyncio.timeout(30):
            while (await world.rows(id_))[0]["epoch"] == 0:
                await asyncio.sleep(0.02)
        async with world.database.begin() as connection:  # as after SIGSTOP: the lease has run out while it was sent
            await connection.execute(sa.update(tables.delivery).values(lease_until=0))
        (row,) = await world.settled()
    assert (row["status"], row["epoch"], len(world.standin.calls)) == ("delivered", 1, 1)


async def test_a_claim_whose_rest_does_not_cover_a_request_is_given_back_and_sent_once_later(world: World) -> None:
    world.standin.faults = [Fault(delay=0.5, times=100)]
    await world.notify(count=64)  # 16 at a time: the third lot begins when too little is left of two seconds
    async with world.notifier(delivery_lease=timedelta(seconds=2)):
        rows = await world.settled()
    assert {row["status"] for row in rows} == {"delivered"}
    assert max(row["epoch"] for row in rows) > 1
    assert len({call.id for call in world.standin.calls}) == len(world.standin.calls) == 64


async def test_however_short_the_lease_a_fresh_claim_covers_a_request(world: World) -> None:
    async with world.notifier(delivery_lease=timedelta(milliseconds=500)):
        await world.notify()
        (row,) = await world.settled()
    assert (row["status"], len(world.standin.calls)) == ("delivered", 1)


async def test_a_process_that_was_stopped_before_its_request_left_does_not_send_it_afterwards(world: World) -> None:
    slack = Slack(within=0.05)
    with pytest.raises(RetryError):  # the stop: nothing runs until the time for the request is over
        await slack.send(
            Text("d", "hello", None, {}),
            channel="#ops",
            token="xoxb",
            base_url=world.standin.url,
            check=lambda: time.sleep(0.1),
        )
    assert world.standin.calls == []
    await slack.close()


async def test_stopping_finishes_what_is_being_sent_and_gives_back_the_rest(world: World) -> None:
    world.standin.faults = [Fault(delay=1.0, times=100)]
    await world.notify(count=40)
    async with world.notifier():
        async with asyncio.timeout(30):
            while sum(row["epoch"] for row in await world.rows()) < 40:
                await asyncio.sleep(0.02)
    rows = await world.rows()
    assert sum(row["status"] == "delivered" for row in rows) == 16 == len(world.standin.calls)
    assert {(row["owner"], row["lease_until"]) for row in rows} == {(None, 0)}


async def test_a_claim_raises_the_epoch_and_only_its_holder_may_write(world: World) -> None:
    await world.notify(wake=False)

    async def take(namespace: str = "default") -> list[Delivery]:
        lease = timedelta(seconds=30)
        return await claim(world.database, namespace=namespace, owner="a", lease=lease, limit=10)

    (first,) = await take()
    assert await take() == []
    assert await put_back(world.database, first)
    assert await take("other") == []
    (second,) = await take()
    assert (first.epoch, second.epoch) == (1, 2)
    async with world.database.begin() as connection:
        assert not await update(connection, first, error="late")
        assert await update(connection, second, error="mine")


async def test_on_kafka_and_postgresql_a_burst_is_sent_once_each(production: World) -> None:
    async with production.notifier():
        ids = await production.notify(count=300)
        rows = await production.settled()
    assert len(rows) == len(ids) == len(production.standin.calls) == len({call.id for call in production.standin.calls})
