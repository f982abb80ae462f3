"""The quickstart's story and its other doors, played by separate processes on real Kafka, PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from examples.quickstart.story import Story, missing_hops
from tests.support.fleet import Fleet
from tests.support.rig import until
from tests.support.services.mosquitto import GivenMosquitto, Mosquitto, mosquitto_pub

from penstock.events.instants import SECOND
from penstock.events.signatures import sign
from penstock.services.database import tables
from penstock.services.standins import StandIn

pytestmark = pytest.mark.timeout(180)
ALL = ("api", "engine", "scheduler", "sensors", "notifier", "worker")
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
PENSTOCK = [sys.executable, "-m", "penstock.services.cli"]
SECRET = "s3cr3t"


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as server:
        yield server


def configure(fleet: Fleet, standin: StandIn, flows: Path, **more: str) -> None:
    """Settings for every process that is started from now on."""
    secrets = {f"PENSTOCK_SECRET_{name}": SECRET for name in ("SLACK", "SMS", "GITHUB", "SHOP")}
    addresses = {"PENSTOCK_SLACK_BASE_URL": standin.url, "PENSTOCK_TWILIO_BASE_URL": standin.url}
    command_line = {"PENSTOCK_API_URL": fleet.url, "PENSTOCK_API_KEY": fleet.key}
    fleet.environment.update({**secrets, **addresses, **command_line, "PENSTOCK_FLOWS": str(flows), **more})


async def penstock(fleet: Fleet, *arguments: str) -> str:
    """Run a command of ours; returns what it prints."""

    def run() -> subprocess.CompletedProcess[str]:
        command = [*PENSTOCK, *arguments]
        return subprocess.run(command, env=fleet.environment, capture_output=True, text=True, timeout=60, check=False)

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_quickstart_plays_through_separate_processes(fleet: Fleet, standin: StandIn) -> None:
    flows = QUICKSTART / "flows" / "orders.py"
    configure(fleet, standin, flows, PENSTOCK_RULES=str(QUICKSTART / "rules"))  # the api process watches them
    await fleet.start_all(*ALL)

    def tell() -> tuple[list[dict[str, Any]], str]:
        story = Story(fleet.url, fleet.key, PENSTOCK, fleet.environment)
        story.ready()
        story.post_order()
        story.approve_by_command(story.pending_approval()["id"])
        hops = story.completed()
        assert story.fired("still-here")["key"] is None
        assert story.machine_run()["state"] == "completed"
        return hops, story.order

    hops, order = await asyncio.to_thread(tell)
    assert missing_hops(hops) == []
    told = [call.text for call in standin.of("slack")]
    assert told == [
        f"Order {order}: 900 EUR by Ada. It waits for approval.",
        f"Order {order} is on its way: parcel-{order}.",
    ]
    (text,) = standin.of("twilio")
    assert (text.to, order in text.text) == ("+15550100", True)


DOORS = """
webhooks:
  - {{name: repo, verify: {{preset: github, secret: "{{{{ secrets.GITHUB }}}}"}}}}
  - name: shop
    verify: {{preset: hmac, header: x-shop-signature, secret: "{{{{ secrets.SHOP }}}}"}}
    event: {{type: order.placed, id: "{{{{ body.id }}}}", subject: "order/{{{{ body.id }}}}"}}
sensors:
  - {{name: {sensor}, driver: mqtt, url: "{url}", topics: ["{sensor}/+/temp"], qos: 1,
     event: {{type: sensor.temperature, subject: "{{{{ topic }}}}"}}}}
automations:
  - {{name: pushed, when: {{event: github.push}}, then: [{{run: note, with: {{what: "{{{{ event.subject }}}}"}}}}]}}
  - {{name: ordered, when: {{event: order.placed}}, then: [{{run: note, with: {{what: "{{{{ event.subject }}}}"}}}}]}}
  - name: warm
    when: {{event: sensor.temperature, where: {{data: {{celsius: [{{numeric: [">", 8]}}]}}}}}}
    then: [{{run: note, with: {{what: "{{{{ event.subject }}}} at {{{{ event.data.celsius }}}}"}}}}]
"""
NOTE = """
from penstock.flows import flow

@flow
def note(what: str) -> str:
    return what
"""


async def test_signed_webhooks_and_an_mqtt_reading_launch_flows(
    fleet: Fleet, standin: StandIn, mosquitto: Mosquitto | GivenMosquitto, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "doors.yaml").write_text(DOORS.format(sensor=prefix, url=mosquitto.url))
    (tmp_path / "note.py").write_text(NOTE)
    configure(fleet, standin, tmp_path / "note.py", PENSTOCK_RULES=str(tmp_path / "nothing-to-watch"))
    await fleet.start_all("api", "engine", "sensors", "worker")
    assert "is in force" in await penstock(fleet, "rules", "apply", str(tmp_path / "rules"))
    await known_webhooks(fleet)

    push = json.dumps({"ref": "main", "repository": {"full_name": "acme/shop"}}).encode()
    order = b'{"id": 17, "total": 3}'
    assert await deliver(fleet, "repo", push, {"x-hub-signature-256": "sha256=" + sign("wrong", push)}) == 401
    assert await deliver(fleet, "shop", order, {"x-shop-signature": sign("wrong", order)}) == 401
    signed = {"x-hub-signature-256": "sha256=" + sign(SECRET, push), "x-github-event": "push"}
    assert await deliver(fleet, "repo", push, signed | {"x-github-delivery": "d-1"}) == 202
    assert await deliver(fleet, "shop", order, {"x-shop-signature": sign(SECRET, order)}) == 202
    await publish_reading(mosquitto.port, f"{prefix}/7/temp", '{"celsius": 9.5}')

    found = await completed(fleet, "note", 3)
    expected = {"acme/shop", "order/17", f"{prefix}/7/temp at 9.5"}
    assert {json.loads(run.result) for run in found} == expected
    await fleet.rig.all_read()  # whatever a refused delivery might have fired would have by now
    assert sorted(name for name, *_ in await fleet.rig.decisions()) == ["ordered", "pushed", "warm"]


async def deliver(fleet: Fleet, name: str, body: bytes, headers: dict[str, str]) -> int:
    """POST to a webhook as a stranger; returns the status."""
    async with fleet.client() as client:
        del client.headers["authorization"]
        answer = await client.post(
            f"/hooks/{name}", content=body, headers={"content-type": "application/json"} | headers
        )
    return answer.status_code


async def known_webhooks(fleet: Fleet) -> None:
    """Until the api process has taken up the rules."""

    async def known() -> bool:
        return await deliver(fleet, "repo", b"{}", {}) != 404

    await until(known, what="the webhooks to be known")


async def publish_reading(port: int, topic: str, payload: str) -> None:
    """By the real command. Retained, so that it reaches the sensor whether it has subscribed by now or not."""
    command = [mosquitto_pub(), "-p", str(port), "-q", "1", "-r", "-t", topic, "-m", payload]
    assert await (await asyncio.create_subprocess_exec(*command)).wait() == 0


async def completed(fleet: Fleet, flow: str, count: int) -> Sequence[Any]:
    """The runs of a flow, once `count` have completed."""

    async def enough() -> Sequence[Any] | None:
        found = await fleet.rig.rows(tables.run, tables.run.c.flow == flow, tables.run.c.state == "completed")
        return found if len(found) >= count else None

    found: Sequence[Any] = await until(enough, what=f"{count} completed runs")
    assert len(found) == count
    return found


RUNS, RATE, BURST = 30, 10, 10
WORKERS, CONCURRENCY = 2, 2
LIMITED = f"""
limits: [{{name: erp, rate: {RATE}/1s, burst: {BURST}}}]
automations:
  - name: booked
    when: {{event: job.wanted}}
    then: [{{run: book, with: {{number: "{{{{ event.data.number }}}}"}}}}]
  - {{name: noted, when: {{event: note.wanted}}, then: [{{run: note, with: {{what: "{{{{ event.id }}}}"}}}}]}}
"""
BOOK = """
@flow(limits=["erp"])
def book(number: int) -> int:
    return number
"""


async def test_thirty_runs_pass_a_limit_of_ten_a_second_across_two_workers(
    fleet: Fleet, standin: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "limited.yaml").write_text(LIMITED)
    (tmp_path / "book.py").write_text(NOTE + BOOK)
    configure(fleet, standin, tmp_path / "book.py", PENSTOCK_RULES=str(tmp_path / "nothing-to-watch"))
    await fleet.start_all("api", "engine")
    for worker in [fleet.spawn("worker", PENSTOCK_CONCURRENCY=str(CONCURRENCY)) for _ in range(WORKERS)]:
        await fleet.ready(worker)
    await penstock(fleet, "rules", "apply", str(tmp_path / "rules"))
    await post(fleet, "note.wanted", 4 * WORKERS)  # first calls are slow; the rows below are to tell of the limit alone
    await completed(fleet, "note", 4 * WORKERS)
    await post(fleet, "job.wanted", RUNS)
    runs = await completed(fleet, "book", RUNS)

    changes: dict[str, list[Any]] = {run.id: [] for run in runs}
    for row in sorted(await fleet.rig.rows(tables.run_event), key=lambda row: int(row.seq)):
        if row.run_id in changes:
            changes[row.run_id].append(row)
    starts = sorted(
        (row.at, row.run_id, row.actor) for rows in changes.values() for row in rows if row.state == "running"
    )
    assert len(starts) == RUNS
    assert busiest_second([at for at, *_ in starts]) <= RATE + BURST
    assert len({actor for *_, actor in starts}) == WORKERS

    ways = [[row.state for row in rows] for rows in changes.values()]
    parked = [way for way in ways if "waiting" in way]
    assert parked
    assert all(way == ["pending", "waiting", "running", "completed"] for way in parked)

    created = {run.id: run.created for run in runs}
    wanted = sorted(created, key=lambda run_id: created[run_id])
    moved = [abs(wanted.index(run_id) - place) for place, (_, run_id, _) in enumerate(starts)]
    assert max(moved) <= WORKERS * CONCURRENCY, moved  # in order, but for those that are claimed at one instant


async def post(fleet: Fleet, type_: str, count: int) -> None:
    """Events of one type, one after the other: each is a run that is made later than the one before."""
    async with fleet.client() as client:
        for number in range(count):
            event = {
                "specversion": "1.0",
                "id": f"{type_}/{number}",
                "source": "/test",
                "type": type_,
                "subject": "jobs",
            }
            answer = await client.post("/events", json=event | {"data": {"number": number}})
            assert answer.status_code == 202, answer.text


def busiest_second(starts: Sequence[int]) -> int:
    """The most starts in any span of one second."""
    return max(sum(1 for each in starts if begin <= each < begin + SECOND) for begin in starts)
