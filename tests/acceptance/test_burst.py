"""A burst, and the process is gone right after the last 202: each event is decided, and decided once."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.embedded import Up, open_up
from tests.support.fleet import Fleet
from tests.support.load import events, post_all
from tests.support.rig import until
from tests.support.scale import scaled

from penstock.events import Event
from penstock.services.database import tables

RULES = """
automations:
  - name: every
    when: {event: load.made}
    then: [{emit: {type: load.seen, subject: "{{ event.id }}"}}]
"""
BATCH = 250
SIGNALS = pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["sigterm", "sigkill"])
Rows = Callable[[], Awaitable[Sequence[Any]]]


def burst() -> list[Event]:
    return events(scaled(20_000), "burst")


def batches(made: Sequence[Event]) -> list[Sequence[Event]]:
    return [made[at : at + BATCH] for at in range(0, len(made), BATCH)]


async def each_decided_once(made: Sequence[Event], rows: Rows) -> None:
    """Wait for as many decisions as events, and see that they are theirs."""
    wanted = Counter(event.id for event in made)

    async def enough() -> bool:
        return len(await rows()) >= len(wanted)

    await until(enough, within=120, what=f"{len(wanted)} decisions")
    assert Counter(json.loads(row.events)[0] for row in await rows()) == wanted


@SIGNALS
@pytest.mark.parametrize("victim", ["api", "engine"])
async def test_a_burst_outlives_the_process_that_took_it(fleet: Fleet, victim: str, how: signal.Signals) -> None:
    made = burst()
    await fleet.rig.apply(RULES)
    processes = await fleet.start_all("api", "engine")
    async with fleet.client() as client:
        await post_all(client, batches(made))
    processes[victim].popen.send_signal(how)
    await asyncio.to_thread(processes[victim].popen.wait, 30)
    await fleet.start(victim)
    await each_decided_once(made, lambda: fleet.rig.rows(tables.decision))
    await fleet.rig.all_read()
    await each_decided_once(made, lambda: fleet.rig.rows(tables.decision))


@SIGNALS
async def test_a_burst_outlives_penstock_up(tmp_path: Path, how: signal.Signals) -> None:
    made = burst()
    async with open_up(tmp_path / "home", RULES) as up:
        await ruled(up)
        async with up.client() as client:
            await post_all(client, batches(made))
        await asyncio.to_thread(up.end, how)
        await up.start()
        await each_decided_once(made, up.decisions)


async def test_a_burst_outlives_the_redis_of_penstock_up(tmp_path: Path) -> None:
    made = burst()
    async with open_up(tmp_path / "home", RULES) as up:
        await ruled(up)
        async with up.client() as client:
            await post_all(client, batches(made))
        up.kill_redis()
        await each_decided_once(made, up.decisions)
        after = events(10, "after")

        async def taken() -> bool:
            async with up.client() as client:
                return (await client.post("/events", json=after[0].to_mapping(), headers=ONE)).status_code == 202

        await until(taken, what="the API to take events again")
        await each_decided_once([*made, after[0]], up.decisions)


ONE = {"Content-Type": "application/cloudevents+json"}


async def ruled(up: Up) -> None:
    """Until the rules of the folder are in force."""

    async def applied() -> bool:
        async with up.client() as client:
            return bool((await client.get("/api/v1/namespaces/default/rules")).json().get("revision"))

    await until(applied, what="the rules")
