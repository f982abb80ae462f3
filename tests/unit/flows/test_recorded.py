"""`now()`, `uuid4()`, `random()`, artifacts, events and prints of a run."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support.journals import Kept

import penstock.flows.emitting as emitting
from penstock.events import Event, NoTargetError
from penstock.flows import ArtifactError, aemit, artifact, emit, flow, get_run_context, now, random, task, uuid4


@flow
def draws() -> tuple[Any, ...]:
    return now(), uuid4(), uuid4(), random(), inner()


@task
def inner() -> str:
    return str(uuid4())


def test_what_a_run_drew_it_draws_again() -> None:
    first = Kept()
    found = first.run(draws)
    assert first.again().run(draws) == found
    assert (type(found[0]), type(found[1]), found[1] == found[2]) == (datetime, UUID, False)
    assert found[0].tzinfo is UTC
    assert Kept().run(draws)[1:4] != found[1:4]


def test_without_a_journal_they_are_the_plain_ones() -> None:
    found = draws()
    assert 0 <= found[3] < 1
    assert found[1] != draws()[1]
    assert now().tzinfo is UTC


async def test_gathered_code_draws_in_the_order_of_its_calls() -> None:
    @task
    async def draw(number: int) -> float:
        await asyncio.sleep(0)
        return random()

    @flow
    async def draws_both() -> list[float]:
        return list(await asyncio.gather(draw(1), draw(1), draw(2)))

    first = Kept()
    from penstock.flows.context import entered

    with entered(first.context()):
        found = await draws_both.call_body({})
    journalled = {call.key: call.result for call in first.calls if call.task == "random"}
    with entered(Kept(journalled).context()):
        assert await draws_both.call_body({}) == found


@flow
def shows(picture: str = "") -> None:
    artifact.markdown("# Routes", key="report", description="of today")
    artifact.table([{"truck": 7, "km": 12}, {"truck": 8, "late": True}], key="trucks")
    artifact.table({"a": [1, 2], "b": [3, 4]})
    artifact.link("https://example.com", text="the map")
    artifact.image(picture)
    artifact.progress(40, key="upload")
    artifact.progress(100, key="upload")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    return str(tmp_path / "dot.png")


def test_artifacts_are_calls_in_the_journal_and_made_once(picture: str) -> None:
    kept = Kept()
    kept.run(shows, picture=picture)
    made = [json.loads(call.result) for call in kept.named("artifact")]
    assert [(each["kind"], each["key"]) for each in made] == [
        ("markdown", "report"), ("table", "trucks"), ("table", ""), ("link", ""), ("image", ""),
        ("progress", "upload"), ("progress", "upload"),
    ]  # fmt: skip
    assert made[0]["description"] == "of today"
    assert made[1]["data"] == {"columns": ["truck", "km", "late"], "rows": [[7, 12, None], [8, None, True]]}
    assert made[2]["data"]["rows"] == [[1, 3], [2, 4]]
    assert made[4]["data"]["url"] == "data:image/png;base64,iVBORw=="
    again = kept.again()
    again.run(shows, picture=picture)
    assert again.calls == []


def test_without_a_server_artifacts_are_logged(picture: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shows(picture)
    assert 'artifact markdown report: "# Routes"' in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: artifact.markdown(3),  # type: ignore[arg-type]  # the point of the test
        lambda: artifact.table([3]),  # type: ignore[list-item]  # the point of the test
        lambda: artifact.table({"a": [1], "b": []}),
        lambda: artifact.link("javascript:alert(1)"),
        lambda: artifact.image("file:///etc/passwd"),
        lambda: artifact.image("notes.txt"),
        lambda: artifact.progress(101, key="x"),
    ],
)
def test_what_cannot_be_shown_is_refused(wrong: Any) -> None:
    with pytest.raises(ArtifactError):
        wrong()


class Bus:
    """Takes events; `fails` is raised instead."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fails: Exception | None = None

    def send(self, event: Event) -> Event:
        if self.fails is not None:
            raise self.fails
        self.events.append(event)
        return event

    async def send_async(self, event: Event) -> Event:
        return self.send(event)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    found = Bus()
    monkeypatch.setattr(emitting, "send", found.send)
    monkeypatch.setattr(emitting, "send_async", found.send_async)
    return found


@flow
def tells() -> list[str]:
    return [emit("order.sent", {"total": 1}, subject="order/7").id, emit("order.sent", {"total": 1}).id, emit("a.b").id]


@flow
async def tells_later() -> str:
    return (await aemit("order.sent", {"total": 1})).id


def test_a_run_s_events_carry_its_causes_and_are_sent_once(bus: Bus) -> None:
    first = Kept()
    ids = first.run(tells)
    assert [event.id for event in bus.events] == ids
    assert len(set(ids)) == 3
    event = bus.events[0]
    assert (event.source, event.correlationid, event.causationid, event.data) == ("flow/tells", "r", "r", {"total": 1})
    assert first.again().run(tells) == ids
    assert len(bus.events) == 3
    Kept().run(tells)
    assert bus.events[3].id == ids[0]  # the same run tried again: the same event
    assert Kept().run(tells_later) == bus.events[-1].id


def test_an_event_that_was_not_acknowledged_is_sent_again(bus: Bus) -> None:
    bus.fails = OSError("no broker")
    first = Kept()
    with pytest.raises(OSError, match="no broker"):
        first.run(tells)
    bus.fails = None
    second = first.again()
    second.run(tells)
    assert len(bus.events) == 3


async def test_with_no_target_a_plain_program_logs_its_events(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bus.fails = NoTargetError("PENSTOCK_API_URL is not set")
    tells()
    await tells_later()
    assert caplog.text.count("not sent: no target") == 4
    with pytest.raises(NoTargetError):
        Kept().run(tells)
    with pytest.raises(NoTargetError):
        emit("a.b")


def test_an_event_of_one_s_own_is_sent_as_it_is(bus: Bus) -> None:
    @flow
    def sends() -> str:
        return emit(Event(id="1", source="s", type="a.b")).key[1]

    assert (sends(), Kept().run(sends)) == ("1", "1")
    assert [event.source for event in bus.events] == ["s", "s"]


def test_prints_become_lines_of_the_run_s_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)

    @task
    def speaks() -> None:
        print("from the task")
        print("no end", end="")

    @flow(log_prints=True)
    def logs() -> str:
        print("two", "words\nand a line")
        speaks()
        return get_run_context().run_id

    @flow
    def quiet() -> None:
        speaks()

    caplog.set_level(logging.INFO)
    run_id = logs()
    lines = [(record.getMessage(), record.__dict__.get("run_id")) for record in caplog.records]
    assert lines == [
        ("two words", run_id), ("and a line", run_id), ("from the task", run_id), ("no end", None),
    ]  # fmt: skip
    assert out.getvalue() == ""
    quiet()
    print("outside")
    assert out.getvalue() == "from the task\nno endoutside\n"
