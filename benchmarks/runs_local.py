"""What a flow and a task cost in plain Python, without a server, over the bare functions.

`python -m benchmarks.runs_local`; BENCH_CALLS says how many calls a round has.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.report import Figure, report

from penstock.flows import flow, task

CALLS = int(os.environ.get("BENCH_CALLS", "20000"))
ROUNDS = 5  # the quickest counts: the others were disturbed
GOAL = 50.0  # µs a task over the bare call


def bare(number: int) -> int:
    """The function that all measures call."""
    return number + 1


async def bare_async(number: int) -> int:
    """The same, async."""
    return number + 1


plain, plain_async = task(bare), task(bare_async)
retried = task(name="retried", retries=3)(bare)
hooked = task(name="hooked", on_completion=lambda _: None, tags=["t"], run_name="n-{number}")(bare)


@flow
def calls(how: str) -> float:
    """Microseconds a call."""
    steps: dict[str, Callable[[int], int]] = {"bare": bare, "task": plain, "retried": retried, "hooked": hooked}
    return _timed(steps[how])


@flow
def submits() -> float:
    """Microseconds a call by `.map`, its result included."""
    start = time.perf_counter()
    plain.map(range(CALLS)).result()
    return (time.perf_counter() - start) / CALLS * 1e6


@flow
async def calls_async(how: str) -> float:
    """Microseconds a call that is awaited."""
    step: Any = {"bare": bare_async, "task": plain_async}[how]
    start = time.perf_counter()
    for number in range(CALLS):
        await step(number)
    return (time.perf_counter() - start) / CALLS * 1e6


@flow
def no_op(number: int) -> int:
    """A flow with one task."""
    return plain(number)


@flow(retries=1)
def remembers() -> float:
    """Microseconds a call in a flow with retries, whose finished tasks are kept in memory."""
    return _timed(plain)


def _timed(step: Callable[[int], int]) -> float:
    start = time.perf_counter()
    for number in range(CALLS):
        step(number)
    return (time.perf_counter() - start) / CALLS * 1e6


def _best(measure: Callable[[], float]) -> float:
    gc.collect()
    return min(measure() for _ in range(ROUNDS))


def measure() -> list[Figure]:
    """All figures; the floor is the bare call in the same loop."""
    floor = _best(lambda: calls("bare"))
    floor_async = _best(lambda: asyncio.run(calls_async("bare")))
    executor = _best(_on_executor)
    return [
        _over("a task", _best(lambda: calls("task")), floor),
        _over("a task with retries", _best(lambda: calls("retried")), floor),
        _over("a task with a hook and a run_name", _best(lambda: calls("hooked")), floor),
        _over("a task of a flow with retries, kept in memory", _best(remembers), floor),
        _over("an async task", _best(lambda: asyncio.run(calls_async("task"))), floor_async),
        _over("a task by .map, on threads", _best(submits), executor, "a bare executor"),
        _over("a flow with one task", _best(lambda: _timed(no_op)), floor),
    ]


def _over(what: str, value: float, floor: float, over: str = "the bare call") -> Figure:
    return Figure(f"{what}, over {over}", "µs", value - floor, floor, GOAL, higher_is_better=False)


def _on_executor() -> float:
    with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4)) as pool:
        start = time.perf_counter()
        futures = [pool.submit(bare, number) for number in range(CALLS)]
        for future in futures:
            future.result()
        return (time.perf_counter() - start) / CALLS * 1e6


if __name__ == "__main__":
    report("bench-runs-local", measure())
