"""`emit` through a real API, with the standard library alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_bus import FakeBus
from tests.support.served import Served, served

from penstock.events import (
    AsyncEmitter,
    BufferFullError,
    BusError,
    BusUnavailableError,
    Emitter,
    Event,
    InvalidEventError,
)
from penstock.events.bus import DEAD_LETTER, EVENTS, SYSTEM
from penstock.events.transports.http import AccessRefusedError


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(partitions=1)


@pytest.fixture
async def api(bus: FakeBus, sqlite_url: str) -> AsyncIterator[Served]:
    for topic in (EVENTS, SYSTEM, DEAD_LETTER):
        await bus.ensure_topic(topic, 1)
    async with served(sqlite_url, bus) as running:
        yield running


def on(bus: FakeBus) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in bus.records(EVENTS)]


async def test_one_event_and_a_batch_arrive_as_they_were_sent(bus: FakeBus, api: Served) -> None:
    async with AsyncEmitter(api.url, key=api.key) as emitter:
        one = await emitter.emit("order.placed", {"total": 42}, subject="Graz-Süd €")
        batch = await emitter.emit([Event(type="a.b", data={"n": n}) for n in range(50)])
    assert on(bus) == [{**event.to_mapping(), "actor": "user/owner"} for event in (one, *batch)]


async def test_a_batch_of_several_mebibytes_is_sent_in_parts(bus: FakeBus, api: Served) -> None:
    async with AsyncEmitter(api.url, key=api.key) as emitter:
        await emitter.emit([Event(type="a.b", data={"n": n, "fill": "x" * 200_000}) for n in range(20)])
        await emitter.emit("a.b", "x" * 1_000_000)
    assert [event["data"]["n"] for event in on(bus)[:20]] == list(range(20))


async def test_what_the_api_refuses_is_told_as_what_it_is(bus: FakeBus, api: Served) -> None:
    async with AsyncEmitter(api.url, key="wrong") as emitter:
        with pytest.raises(AccessRefusedError, match="PENSTOCK_API_KEY"):
            await emitter.emit("a.b")
    async with AsyncEmitter(api.url + "/elsewhere", key=api.key) as emitter:
        with pytest.raises(BusError, match="404"):
            await emitter.emit("a.b")
    bus.away = True
    async with AsyncEmitter(api.url, key=api.key) as emitter:
        with pytest.raises(BusUnavailableError, match="503"):
            await emitter.emit("a.b")
        bus.away = False
        await emitter.emit("a.b")
    assert len(on(bus)) == 1


async def test_the_penstock_that_runs_here_is_found(
    bus: FakeBus, api: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".penstock"
    folder.mkdir()
    (folder / "key").write_text(api.key)
    (folder / "instance.json").write_text(json.dumps({"url": api.url, "key_file": str(folder / "key"), "pid": 1}))
    monkeypatch.chdir(tmp_path)

    def run() -> None:
        with Emitter() as emitter:
            for number in range(20):
                emitter.emit("a.b", number)

    await asyncio.to_thread(run)
    assert [event["data"] for event in on(bus)] == list(range(20))


async def test_many_tasks_share_the_connections(bus: FakeBus, api: Served) -> None:
    async with AsyncEmitter(api.url, key=api.key) as emitter:
        await asyncio.gather(*(emitter.emit("a.b", number) for number in range(200)))
    assert sorted(event["data"] for event in on(bus)) == list(range(200))


class Answering(BaseHTTPRequestHandler):
    """Answers what the test says; closes connections that are kept, without a word, when it says so."""

    protocol_version = "HTTP/1.1"
    status, body, drop = 202, b"", False
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)
        self.close_connection = self.drop

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def answering() -> Iterator[tuple[type[Answering], str]]:
    handler = type("Handler", (Answering,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"detail": "event 1 of the batch: id: too short", "field": "id", "index": 1}', InvalidEventError),
        (413, b"", InvalidEventError),
        (429, b'{"detail": "slow down"}', BufferFullError),
        (500, b"<html>", BusUnavailableError),
        (301, b"", BusError),
        (200, b"", None),
    ],
)
async def test_every_answer_has_its_error(
    answering: tuple[type[Answering], str], status: int, body: bytes, error: type[Exception] | None
) -> None:
    handler, url = answering
    handler.status, handler.body = status, body
    async with AsyncEmitter(url) as emitter:
        if error is None:
            await emitter.emit("a.b")
            return
        with pytest.raises(error) as refused:
            await emitter.emit("a.b")
    if status == 400 and isinstance(refused.value, InvalidEventError):
        assert (refused.value.field, refused.value.index) == ("id", 1)
        assert str(refused.value).count("event 1 of the batch") == 1


async def test_a_connection_that_the_server_closed_is_replaced_unseen(answering: tuple[type[Answering], str]) -> None:
    handler, url = answering
    handler.drop = True
    async with AsyncEmitter(url) as emitter:
        for _ in range(5):
            await emitter.emit("a.b")
    assert handler.requests == 5


async def test_an_api_that_is_not_there_is_an_error() -> None:
    async with AsyncEmitter("http://127.0.0.1:1", timeout=2) as emitter:
        with pytest.raises(BusUnavailableError):
            await emitter.emit("a.b")
