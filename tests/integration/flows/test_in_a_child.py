"""The library inside a worker's child: the same code as in plain Python, recorded over the channel and replayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.services.worker.children import Child
from penstock.services.worker.frames import Execute, Finished, Known, Log, Started, TaskFinished

FLOWS = """
import asyncio, os, threading
from typing import Iterator
from penstock.flows import *

@task(run_name="square {number}")
def square(number: int) -> int:
    with open("bodies", "a") as file:
        file.write("square\\n")
    return number * number

@task
async def later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1

@task
def items(upto: int) -> Iterator[int]:
    yield from range(upto)

def undo(moment):
    with open("bodies", "a") as file:
        file.write(f"undo {moment.result}\\n")

@task(on_rollback=undo)
def book(what: str) -> str:
    return what

@flow(run_name="all of {name}")
def everything(name: str) -> list:
    squares = square.map(items(4))
    after = later.submit(squares[3])
    artifact.progress(50, key="half")
    print("half way")
    drawn = [now().isoformat(), str(uuid4()), random()]
    return [squares.result(), after.result(), *drawn, below(2), get_run_context().run_name]

@flow
def below(number: int) -> int:
    return square.submit(number).result()

@flow
async def everything_async() -> list:
    squares = square.map([1, 2])
    return [await squares, await later.map(squares), await later.submit(later.submit(1))]

@flow(runner=ProcessRunner(max_workers=1))
def in_processes() -> list[int]:
    return square.map([1, 2]).result()

@flow(retries=1, retry_if=LookupError)
def books(error: str):
    book("train")
    book("hotel")
    raise LookupError("closed") if error == "lookup" else ValueError("broken")

@task
def blocks():
    print("napping")
    threading.Event().wait()

@flow
def is_stuck():
    blocks.submit().result()

@flow(run_name="{text}")
def raises_odd_text(text: str):
    raise ValueError(text + chr(0xD800))

@flow(on_changed_code="refuse")
def refuses():
    return square(3)
"""

numbers = count(1)


class Worker:
    """The parent's side: a child, and what its last run told."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.tasks: list[TaskFinished] = []
        self.logs: list[Log] = []
        self.started: list[Started] = []
        self.napping = asyncio.Event()

    async def run(self, flow: str, journal: dict[str, bytes] | None = None, **more: Any) -> Finished:
        self.tasks, self.started = [], []
        fields = {each.name for each in msgspec.structs.fields(Execute)}
        options = {name: more.pop(name) for name in list(more) if name in fields}
        body = json.dumps(more).encode()
        order = Execute(
            run_id=f"run-{next(numbers)}", epoch=7, flow=flow, parameters=body, journal=journal or {}, **options
        )
        self.run_id = order.run_id
        async with asyncio.timeout(30):
            return await self.child.execute(
                order, on_task=self._on_task, on_log=self._on_log, on_started=self.started.append
            )

    def journal(self) -> dict[str, bytes]:
        return {call.call: call.result for call in self.tasks if call.state == "completed"}

    async def _on_task(self, call: TaskFinished) -> None:
        await asyncio.sleep(0)
        self.tasks.append(call)

    def _on_log(self, line: Log) -> None:
        self.logs.append(line)
        if line.line == "napping":
            self.napping.set()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    (tmp_path / "jobs.py").write_text(FLOWS)
    child = await Child.start(("jobs.py",), cwd=tmp_path, grace=0.2)
    try:
        yield Worker(child)
    finally:
        await child.kill()


def bodies(tmp_path: Path) -> list[str]:
    return (tmp_path / "bodies").read_text().splitlines()


async def test_everything_is_recorded_and_replayed(worker: Worker, tmp_path: Path) -> None:
    first = await worker.run("everything", name="ann")
    assert first.state == "completed", first
    found = json.loads(first.result)
    assert (found[0], found[1], found[5], found[6]) == ([0, 1, 4, 9], 10, 4, "all of ann")
    assert worker.started[0].name == "all of ann"
    assert "half way" in [log.line for log in worker.logs]
    calls = {call.call: call for call in worker.tasks}
    assert sorted(call.label for call in calls.values() if call.name == "square") == [
        "square 0", "square 1", "square 2", "square 2", "square 3",
    ]  # fmt: skip
    [after] = [call for call in calls.values() if call.name == "later"]
    assert [calls[key].label for key in after.takes] == ["square 3"]
    second = await worker.run("everything", worker.journal(), name="ann")
    assert (second.result, worker.tasks, len(bodies(tmp_path))) == (first.result, [], 5)


async def test_async_flows_and_processes_too(worker: Worker, tmp_path: Path) -> None:
    first = await worker.run("everything-async")
    assert json.loads(first.result) == [[1, 4], [2, 5], 3]
    journal = worker.journal()
    assert (await worker.run("everything-async", journal)).result == first.result
    assert worker.tasks == []
    assert json.loads((await worker.run("in-processes")).result) == [1, 4]


async def test_what_was_done_is_undone_by_the_last_try(worker: Worker, tmp_path: Path) -> None:
    first = await worker.run("books", error="lookup", retries_left=1)
    assert (first.state, first.retry, (tmp_path / "bodies").exists()) == ("failed", True, False)
    second = await worker.run("books", worker.journal(), error="lookup")
    assert (second.state, bodies(tmp_path)) == ("failed", ["undo hotel", "undo train"])
    third = await worker.run("books", error="value", retries_left=1)
    assert (third.retry, len(bodies(tmp_path))) == (False, 4)


async def test_a_submitted_task_that_never_ends_keeps_no_run(worker: Worker) -> None:
    running = asyncio.create_task(worker.run("is-stuck"))
    await worker.napping.wait()
    worker.child.cancel(worker.run_id)
    finished = await running
    assert (finished.state, finished.spent) == ("cancelled", True)


async def test_changed_code_is_refused_where_the_flow_says_so(worker: Worker) -> None:
    await worker.run("refuses")
    [call] = worker.tasks
    same = {call.call: Known(call.name, call.source, call.parent)}
    source = worker.started[0].source
    assert (await worker.run("refuses", {call.call: b"9"}, calls=same, source=source)).state == "completed"
    python = call.source.split(":")[0]
    other = {call.call: Known(call.name, f"{python}:0", call.parent)}
    refused = await worker.run("refuses", {call.call: b"9"}, calls=other, source=source)
    assert refused.state == "failed"
    assert "the code of 'square' is another" in (refused.error or "")


async def test_text_that_cannot_be_sent_is_sent_as_it_can_be(worker: Worker) -> None:
    finished = await worker.run("raises-odd-text", text="cold\0")
    assert (finished.state, worker.started[0].name) == ("failed", "cold")
    assert (finished.error or "").endswith("?")
    assert (await worker.run("everything-async")).state == "completed"
