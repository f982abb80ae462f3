"""`emit` against real brokers: what it says was sent can be read, and what cannot be sent is told in time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.events import (
    AsyncEmitter,
    BufferFullError,
    BusError,
    BusUnavailableError,
    Emitter,
    Event,
    InvalidEventError,
)
from penstock.events.bus import EVENTS, Bus, Record, TopicPartition
from penstock.events.codec import from_record
from penstock.services.bus import connect

PARTITIONS = 3


@pytest.fixture
async def bus(any_bus_url: str) -> AsyncIterator[Bus]:
    bus = await connect(any_bus_url)
    await bus.ensure_topic(EVENTS, PARTITIONS)
    yield bus
    await bus.close()


async def read(bus: Bus, count: int) -> list[Record]:
    """`count` records of the events topic, and a look that there are no more."""
    reader = bus.reader()
    for number in range(PARTITIONS):
        await reader.take(TopicPartition(EVENTS, number), await bus.beginning(TopicPartition(EVENTS, number)))
    found: list[Record] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for records in (await reader.poll(max_records=1_000, timeout=0.2)).values():
                found += records
    for records in (await reader.poll(max_records=1_000, timeout=0.2)).values():
        found += records
    await reader.close()
    assert len(found) == count
    return found


async def test_an_emitted_event_is_on_the_bus_dated_now(bus: Bus, any_bus_url: str) -> None:
    async with AsyncEmitter(any_bus_url, source="/shop") as emitter:
        sent = await emitter.emit("order.placed", {"total": 42}, subject="order/7", correlationid="c")
    (record,) = await read(bus, 1)
    body, envelope = from_record(record.headers, record.value)
    assert json.loads(body) == sent.to_mapping()
    assert (envelope.key, envelope.correlationid) == (("/shop", sent.id), "c")
    assert envelope.time is not None
    assert abs(envelope.time.timestamp() - time.time()) < 30


async def test_a_batch_keeps_its_order_per_key_and_uses_all_partitions(bus: Bus, any_bus_url: str) -> None:
    events = [Event(type="a.b", subject=f"truck/{n % 30}", data={"n": n}) for n in range(900)]
    async with AsyncEmitter(any_bus_url) as emitter:
        sent = await emitter.emit(events)
    assert [event.id for event in sent] == [event.id for event in events]
    found = await read(bus, 900)
    assert {record.partition for record in found} == set(range(PARTITIONS))
    by_subject: dict[str, list[int]] = {}
    for record in found:
        mapping = json.loads(record.value)
        by_subject.setdefault(mapping["subject"], []).append(mapping["data"]["n"])
    assert all(numbers == sorted(numbers) and len(numbers) == 30 for numbers in by_subject.values())


async def test_a_client_and_the_services_choose_the_same_partition_for_a_key(bus: Bus, any_bus_url: str) -> None:
    events = [Event(type="a.b", subject=f"order/{n}") for n in range(40)]
    async with AsyncEmitter(any_bus_url) as emitter:
        await emitter.emit(events)
    publisher = await bus.publisher()
    from penstock.events.codec import outgoing

    await publisher.publish([outgoing(event) for event in events])
    await publisher.close()
    homes: dict[bytes | None, set[int]] = {}
    for record in await read(bus, 80):
        homes.setdefault(record.key, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())


async def test_the_synchronous_emitter_serves_many_threads(bus: Bus, any_bus_url: str) -> None:
    def work(emitter: Emitter, number: int) -> None:
        for each in range(20):
            emitter.emit("a.b", {"n": each}, subject=f"thread/{number}")

    def run() -> None:
        with Emitter(any_bus_url) as emitter:
            threads = [threading.Thread(target=work, args=(emitter, number)) for number in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    await asyncio.to_thread(run)
    await read(bus, 100)


@pytest.mark.parametrize("size", [1_000_000])
async def test_the_largest_event_fits_and_a_larger_one_is_refused(bus: Bus, any_bus_url: str, size: int) -> None:
    async with AsyncEmitter(any_bus_url) as emitter:
        await emitter.emit("a.b", "x" * size)
        with pytest.raises(InvalidEventError, match="1 MiB"):
            await emitter.emit("a.b", "x" * (1 << 20))
    await read(bus, 1)


async def test_nothing_is_sent_of_a_batch_with_a_bad_event(bus: Bus, any_bus_url: str) -> None:
    async with AsyncEmitter(any_bus_url) as emitter:
        with pytest.raises(InvalidEventError) as refused:
            await emitter.emit([Event(type="a.b"), Event(type="penstock.run.completed")])
        assert refused.value.index == 1
        with pytest.raises(InvalidEventError):
            await emitter.emit("a.b", float("nan"))
    await read(bus, 0)


async def test_a_full_buffer_is_told_at_once(bus: Bus, any_bus_url: str) -> None:
    async with AsyncEmitter(any_bus_url, max_buffer=50_000) as emitter:
        outcomes = await asyncio.gather(*(emitter.emit("a.b", "x" * 10_000) for _ in range(20)), return_exceptions=True)
        full = [error for error in outcomes if isinstance(error, BufferFullError)]
        sent = [event for event in outcomes if isinstance(event, Event)]
        assert full
        assert sent
        assert len(full) + len(sent) == 20
        await emitter.emit("a.b", "and afterwards it goes on")
    await read(bus, len(sent) + 1)


@pytest.mark.parametrize("scheme", ["kafka", "redis"])
async def test_a_dead_broker_is_an_error_within_the_timeout(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        begun = time.monotonic()
        async with AsyncEmitter(f"{scheme}://127.0.0.1:{port}", timeout=2) as emitter:
            with pytest.raises(BusUnavailableError):
                await emitter.emit("a.b")
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("scheme", ["kafka", "redis"])
async def test_a_broker_that_never_answers_is_an_error_within_the_timeout(scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        async with AsyncEmitter(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", timeout=1) as emitter:
            with pytest.raises(BusUnavailableError):
                await emitter.emit("a.b")
        assert time.monotonic() - begun < 8


async def test_a_restarted_broker_is_found_again(bus: Bus, any_bus_url: str, request: pytest.FixtureRequest) -> None:
    server: Any = request.getfixturevalue("kafka" if any_bus_url.startswith("kafka") else "redis_server")
    async with AsyncEmitter(any_bus_url, timeout=3) as emitter:
        await emitter.emit("a.b", 1)
        await asyncio.to_thread(server.stop)
        with pytest.raises(BusUnavailableError):
            await emitter.emit("a.b", 2)
        await asyncio.to_thread(server.start)
        event = Event(type="a.b", data=3)
        async with asyncio.timeout(60):
            while True:
                try:
                    await emitter.emit(event)
                    break
                except BusError:
                    await asyncio.sleep(0.1)


async def test_a_missing_topic_is_an_error(any_bus_url: str) -> None:
    async with AsyncEmitter(any_bus_url, timeout=4) as emitter:
        with pytest.raises(BusError, match="topic"):
            await emitter.emit("a.b")


def _python(program: str, any_bus_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PENSTOCK_BUS_URL": any_bus_url}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


async def test_a_program_may_emit_before_and_after_a_fork(bus: Bus, any_bus_url: str, tmp_path: Path) -> None:
    program = """
        import os, sys
        from penstock.events import emit
        emit("a.b", "parent before")
        child = os.fork()
        emit("a.b", "child" if child == 0 else "parent after")
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = await asyncio.to_thread(_python, program, any_bus_url, tmp_path)
    assert not done.stderr
    data = {json.loads(record.value)["data"] for record in await read(bus, 3)}
    assert data == {"parent before", "parent after", "child"}


async def test_what_other_threads_send_is_finished_at_the_end_of_a_program(
    bus: Bus, any_bus_url: str, tmp_path: Path
) -> None:
    program = """
        from penstock.events.emit import _NOTHING, _shared, prepare
        for number in range(50):
            _shared().submit(prepare("a.b", number, None, {})[1])
    """
    done = await asyncio.to_thread(_python, program, any_bus_url, tmp_path)
    assert not done.stderr
    await read(bus, 50)


async def test_emit_and_aemit_share_a_connection(bus: Bus, any_bus_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.events import aemit, emit
    from penstock.events import emit as emit_function

    monkeypatch.setenv("PENSTOCK_BUS_URL", any_bus_url)
    emitting = sys.modules[emit_function.__module__]
    try:
        sent = await aemit("a.b", {"n": 1}, subject="s")
        assert isinstance(sent, Event)
        await asyncio.to_thread(emit, Event(type="a.b"))
        assert len(await aemit([Event(type="a.b"), Event(type="a.b")])) == 2
    finally:
        await asyncio.to_thread(emitting.close)
    await read(bus, 4)
