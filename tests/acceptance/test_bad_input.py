"""What is wrong is told clearly, at the door it came in by; the valid rest goes on. Real processes, real Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.support.fleet import Fleet
from tests.support.rig import until

from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.services.database import tables

pytestmark = pytest.mark.timeout(180)
NUL = "\\u0000"  # as JSON writes it
EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "subject": "orders"}
GOOD = """
automations:
  - name: seen
    when: {event: order.placed}
    then: [{emit: {type: order.seen, subject: "{{ event.id }}"}}]
"""


def text(**more: Any) -> bytes:
    """An event as JSON; what is None is left out."""
    return json.dumps({key: value for key, value in (EVENT | more).items() if value is not None}).encode()


async def penstock(fleet: Fleet, *arguments: str) -> tuple[int, str, str]:
    """Run a command as the owner.  Returns its exit code, what it printed and what it complained about."""

    def run() -> tuple[int, str, str]:
        environment = {**fleet.environment, "PENSTOCK_API_URL": fleet.url, "PENSTOCK_API_KEY": fleet.key}
        command = [sys.executable, "-m", "penstock.services.cli", *arguments]
        done = subprocess.run(
            command, env=environment, cwd=fleet.folder, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return await asyncio.to_thread(run)


async def in_force(fleet: Fleet, rules: str) -> None:
    """Apply rules by the command line."""
    (fleet.folder / "good.yaml").write_text(rules)
    code, _, complaint = await penstock(fleet, "rules", "apply", "good.yaml")
    assert code == 0, complaint


async def fired(fleet: Fleet, count: int) -> list[str]:
    """The ids of the events that made `seen` fire, once nothing is left to read."""
    found = await fleet.rig.wait_for_decisions(count)
    await fleet.rig.all_read()
    assert {name for name, *_ in found} == {"seen"}
    return sorted(events[0] for *_, events in await fleet.rig.decisions())


BAD_REQUESTS = [
    # body, status, field
    (b'{"specversion": "1.0", "id": ', 400, ""),
    (b"[1, 2", 400, ""),
    (b"\xff\xfe", 400, ""),
    (text(id=None), 400, "id"),
    (text(source=None), 400, "source"),
    (text(type=None), 400, "type"),
    (text(time="yesterday"), 400, "time"),
    (text(data={"name": "a\0b"}), 400, "data"),
    (text(type="penstock.run.completed"), 400, "type"),
    (text(data="x" * (2 << 20)), 413, ""),
]


async def test_bad_requests_are_refused_with_a_problem_and_good_ones_beside_them_fire(fleet: Fleet) -> None:
    await fleet.start_all("api", "engine")
    await in_force(fleet, GOOD)
    headers = {"content-type": "application/cloudevents+json"}
    async with fleet.client() as client:
        for number, (body, status, field) in enumerate(BAD_REQUESTS):
            refused = await client.post("/events", content=body, headers=headers)
            assert (refused.status_code, problem(refused).get("field", "")) == (status, field), (number, refused.text)
            taken = await client.post("/events", content=text(id=f"good-{number}"), headers=headers)
            assert taken.status_code == 202, taken.text
    assert await fired(fleet, len(BAD_REQUESTS)) == sorted(f"good-{n}" for n in range(len(BAD_REQUESTS)))
    assert len(await fleet.rig.records(bus.EVENTS)) > 0
    assert await fleet.rig.context.bus.topic(bus.DEAD_LETTER) is None or not await fleet.rig.records(bus.DEAD_LETTER)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem details of a refusal (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert (body["status"], body["detail"] != "") == (answer.status_code, True)
    return body


LARGE = text(id="large", data="x" * (2 << 20))
BAD_RECORDS = [
    # value, what the reason says
    (b'{"specversion": "1.0", "id": ', "not JSON"),
    (b"\xff\xfe\x00", "not JSON"),
    (b"", "not JSON"),
    (b"[]", "object"),
    (text(id=None), "id"),
    (text(source=None), "source"),
    (text(type=None), "type"),
    (text(time="yesterday"), "time"),
    (text(data={"name": "a\0b"}), NUL),
    (text(type="penstock.run.completed"), "reserved"),
    (b"[" * 100_000, "nested"),
    (LARGE, "1 MiB"),
]


async def test_bad_records_on_the_bus_are_dead_letters_and_good_ones_beside_them_fire(fleet: Fleet) -> None:
    await fleet.start_all("api", "engine")
    await in_force(fleet, GOOD)
    publisher = await fleet.rig.context.bus.publisher()
    for number, (value, _) in enumerate(BAD_RECORDS):  # one key: all lie in one partition, good and bad by turns
        good = text(id=f"good-{number}")
        await publisher.publish([Outgoing(bus.EVENTS, each, b"orders") for each in (value, good)])
    await publisher.close()
    assert await fired(fleet, len(BAD_RECORDS)) == sorted(f"good-{n}" for n in range(len(BAD_RECORDS)))

    _, printed, _ = await penstock(fleet, "dlq", "list", "--json")
    listed = sorted(json.loads(printed), key=lambda letter: int(letter["origin"]["offset"]))
    assert [letter["origin"]["topic"] for letter in listed] == [bus.EVENTS] * len(BAD_RECORDS)
    for letter, (_, reason) in zip(listed, BAD_RECORDS, strict=True):
        assert reason in letter["reason"], letter
    _, table, _ = await penstock(fleet, "dlq", "list")
    assert all(letter["id"] in table for letter in listed)
    shown = [json.loads((await penstock(fleet, "dlq", "show", listed[at]["id"]))[1]) for at in (0, 1, -1)]
    assert [letter["key"] for letter in shown] == [{"text": "orders"}] * 3
    assert shown[0]["value"] == {"text": BAD_RECORDS[0][0].decode()}
    assert shown[1]["value"] == {"base64": "//4A"}
    assert shown[2]["value"] == {"sha256": hashlib.sha256(LARGE).hexdigest(), "length": len(LARGE)}


@dataclass(frozen=True)
class Mistake:
    """A rule file with one mistake: where it stands, and what is said of it."""

    text: str
    line: int
    column: int
    says: str
    hint: str


FLOWS = """
from penstock.flows import flow

@flow
def reroute(truck: str) -> str:
    return truck
"""
MISTAKES = [
    Mistake(GOOD + "    shaddow: true\n", 6, 5, "unknown key `shaddow`", "did you mean `shadow`?"),
    Mistake(
        "automations:\n  - {name: a, when: {event: x}, then: [{run: reroutee, with: {truck: t}}]}\n",
        2,
        0,
        "reroutee",
        "did you mean `reroute`?",
    ),
    Mistake(GOOD + GOOD.replace("\nautomations:\n", ""), 6, 11, "automation `seen` is defined twice", "rename one"),
    Mistake(GOOD.replace("event.id", "evnt.id"), 5, 0, "evnt", "did you mean `event`?"),
    Mistake(
        GOOD.replace("order.placed}", "order.placed, where: {subject: [{prefixx: a}]}}"),
        4,
        52,
        "unknown operator `prefixx`",
        "did you mean `prefix`?",
    ),
]


async def test_a_wrong_rule_file_is_refused_with_its_place_and_what_was_in_force_goes_on(fleet: Fleet) -> None:
    (fleet.folder / "trucks.py").write_text(FLOWS)
    fleet.environment["PENSTOCK_FLOWS"] = str(fleet.folder / "trucks.py")
    await fleet.start_all("api", "engine", "worker")
    await in_force(fleet, GOOD)

    async def registered() -> Sequence[Any]:
        return await fleet.rig.rows(tables.flow)

    await until(registered, what="the worker to register its flow")
    (fleet.folder / "rules").mkdir()
    file = fleet.folder / "rules" / "wrong.yaml"
    async with fleet.client() as client:
        for number, mistake in enumerate(MISTAKES):
            file.write_text(mistake.text)
            for command in (["check", "rules", "--flows", "trucks.py"], ["apply", "rules"]):
                code, printed, complaint = await penstock(fleet, "rules", *command)
                assert (code, printed) == (1, ""), (mistake, complaint)
                place = f"rules/wrong.yaml:{mistake.line}:{mistake.column or ''}"
                assert complaint.startswith(place), complaint
                assert mistake.says in complaint, complaint
                assert mistake.hint in complaint, complaint
            refused = await client.post(
                "/api/v1/namespaces/default/rules", json={"files": {"wrong.yaml": mistake.text}}
            )
            assert refused.status_code == 422
            assert problem(refused)["problems"][0]["line"] == mistake.line
            taken = await client.post("/events", json=EVENT | {"id": f"good-{number}"})
            assert taken.status_code == 202
    assert await fired(fleet, len(MISTAKES)) == sorted(f"good-{n}" for n in range(len(MISTAKES)))
    assert len(await fleet.rig.rows(tables.revision)) == 1
