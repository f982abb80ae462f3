"""Tasks whose bodies run in other processes, for tests of task runners."""

from __future__ import annotations

import os
from typing import Any

from tests.support.journals import Kept

from penstock.flows import Flow, RunnerError, TaskRunner, flow, get_logger, get_run_context, task


@task
def square(number: int) -> int:
    return number * number


@task
def process(_: int) -> int:
    get_logger().info("a line from elsewhere")
    return os.getpid()


@task
def who() -> str:
    context = get_run_context()
    return f"{context.flow}/{context.task}/{context.journal}/{nested(3)}"


@task
def nested(number: int) -> int:
    return square(number)


@task(retries=2)
def unsteady(folder: str) -> int:
    """Fails twice, wherever it runs."""
    tries = len(os.listdir(folder))
    open(f"{folder}/{tries}", "w").close()
    if tries < 2:
        raise OSError(f"try {tries}")
    return tries


@task
def raises() -> None:
    raise LookupError("no such truck")


@task
def takes_a_lock(lock: Any) -> None: ...


@flow
def spreads(folder: str) -> dict[str, Any]:
    squares = square.map(range(20))
    total = add.submit(squares)
    failed = raises.submit()
    return {
        "squares": squares.result(),
        "total": total.result(),
        "processes": process.map(range(8)).result(),
        "who": who.submit().result(),
        "unsteady": unsteady.submit(folder).result(),
        "error": str(failed.exception()),
    }


@task
def add(numbers: list[int]) -> int:
    return sum(numbers)


def check_runner(runner: TaskRunner, folder: str) -> set[int]:
    """A flow whose tasks run by `runner`, recorded and replayed.  Returns the processes that worked."""
    on_runner: Flow[..., Any] = spreads.with_options(runner=runner)
    first = Kept()
    found = first.run(on_runner, folder=folder)
    assert found["squares"] == [number * number for number in range(20)]
    assert (found["total"], found["unsteady"], found["error"]) == (sum(found["squares"]), 2, "no such truck")
    assert found["who"] == "spreads/who/None/9"
    second = first.again()
    assert second.run(on_runner, folder=folder) == found
    assert {call.task for call in second.calls} == {"raises"}
    assert os.getpid() not in found["processes"]
    return set(found["processes"])


def check_refusals(runner: TaskRunner) -> str:
    """What cannot travel, named."""
    import threading

    @flow(runner=runner)
    def passes_a_lock() -> None:
        takes_a_lock.submit(threading.Lock()).result()

    try:
        passes_a_lock()
    except RunnerError as error:
        return str(error)
    raise AssertionError("a lock has travelled")
