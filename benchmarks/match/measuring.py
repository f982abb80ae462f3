"""`make bench-match`: how fast events find their rules, and what a rule costs.

Rates are events a second of CPU time of this one thread, JSON text in, keys out, best of several passes. The floors
(orjson and msgspec decoding whole events, a linear scan over the patterns) run in between on the same events.
Arguments: the names of sets, and `--most N` for the largest number of rules. Results go to
benchmarks/out/bench-match.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import orjson
from benchmarks.match import rule_sets

from penstock.triggers import Matcher, Pattern

SIZES = (10, 1_000, 10_000, 100_000)
LINEAR_UP_TO = 1_000  # a linear scan of more rules takes minutes
OUT = Path(__file__).parents[1] / "out" / "bench-match.json"


@dataclass
class Result:
    """One line of the table.  ratio: value over floor; goal: of the ratio or of the value, as `goal_is_ratio` says."""

    measure: str
    unit: str
    value: float
    floor: float | None = None
    ratio: float | None = None
    goal: float | None = None
    goal_is_ratio: bool = False
    higher_is_better: bool = True

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:8.2f}x"
        return f"{self.measure:<58}{self.value:>12,.1f} {self.unit:<10}{ratio:>9}  {self._verdict()}"

    def _verdict(self) -> str:
        measured = self.ratio if self.goal_is_ratio else self.value
        if self.goal is None or measured is None:
            return ""
        met = measured >= self.goal if self.higher_is_better else measured <= self.goal
        return f"{'met' if met else 'MISSED'} (goal {self.goal:,g}{'x' if self.goal_is_ratio else ''})"


def rate(work: Callable[[bytes], object], bodies: list[bytes], passes: int = 4) -> float:
    """Events a second of CPU time; results are dropped at once, as they would be in use."""

    def once() -> None:
        for body in bodies:
            work(body)

    return max(len(bodies) / _seconds(once) for _ in range(passes))


def beside(
    floor: Callable[[bytes], object], work: Callable[[bytes], object], bodies: list[bytes], passes: int = 1
) -> tuple[float, float]:
    """The rates of two, taken in turns, so that a neighbour on the machine hinders both.

    passes: how many of one before it is the other's turn; from two on each has one on the caches as it leaves them.
    """
    pairs = [(rate(floor, bodies, passes), rate(work, bodies, passes)) for _ in range(6)]
    return max(first for first, _ in pairs), max(second for _, second in pairs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def loaded(kind: str, count: int, *, unique_keys: bool = True) -> tuple[Matcher, float, float]:
    """A matcher with so many rules, the seconds it took to compile and add them from JSON, and its megabytes."""
    texts = [orjson.dumps(rule) for rule in rule_sets.rules(kind, count)]
    gc.collect()
    before, matcher = resident(), Matcher(unique_keys=unique_keys)

    def load() -> None:
        for key, text in enumerate(texts):
            matcher.add(key, Pattern(orjson.loads(text)))

    return matcher, _seconds(load), resident() - before


def one_set(kind: str, most: int, bodies: list[bytes]) -> list[Result]:
    """All sizes of one set, with its floors."""
    results: list[Result] = []
    rates: dict[int, float] = {}
    for count in (size for size in SIZES if size <= most):
        matcher, seconds, megabytes = loaded(kind, count)
        matches = sum(len(matcher.match_json(body)) for body in bodies) / len(bodies)
        parse, rates[count] = beside(orjson.loads, matcher.match_json, bodies)
        results.append(_of(f"{kind}, {count} rules ({matches:.2f} matches an event)", rates[count], parse))
        if count <= LINEAR_UP_TO:
            results.append(_of(f"{kind}, {count} rules, linear scan", _linear(kind, count, bodies), parse))
        if count == 100_000:
            ten, _, _ = loaded(kind, SIZES[0])  # anew: that of minutes ago had another share of the machine
            kept = beside(ten.match_json, matcher.match_json, bodies, passes=2)
            results += _goals(kind, kept, rates[count], parse) + _costs(kind, matcher, seconds, megabytes)
        del matcher
    return results


def _of(measure: str, value: float, floor: float) -> Result:
    return Result(measure, "events/s", value, floor, value / floor)


def _linear(kind: str, count: int, bodies: list[bytes]) -> float:
    patterns = [Pattern(rule) for rule in rule_sets.rules(kind, count)]

    def scan(body: bytes) -> object:
        event = msgspec.json.decode(body)
        return [pattern for pattern in patterns if pattern.matches(event)]

    return rate(scan, bodies[: max(10_000 // count, 20)], passes=2)


def _goals(kind: str, kept: tuple[float, float], most: float, parse: float) -> list[Result]:
    """kept: the rates of 10 rules and of 100,000, taken in turns.  most: that of 100,000 beside `parse`."""
    ten, many = kept
    keep = {"exact": 0.6, "mixed": 1 / 6, "broad": 1 / 6}.get(kind, 0.5)
    goals = [
        Result(f"{kind}: rate kept from 10 to 100,000 rules", "events/s", many, ten, many / ten, round(keep, 3), True)
    ]
    if kind == "exact":
        goals.append(
            Result("exact: 100,000 rules against orjson's parse", "events/s", most, parse, most / parse, 1, True)
        )
    if kind == "mixed":
        goals.append(Result("mixed: 100,000 rules", "events/s", most, parse, most / parse, 100_000))
    return goals


def _costs(kind: str, matcher: Matcher, seconds: float, megabytes: float) -> list[Result]:
    added, removed = [], []
    for key, rule in enumerate(rule_sets.rules(kind, 1_000)):
        pattern = Pattern(rule)
        added.append(_seconds(partial(matcher.add, ("fresh", key), pattern)))
    for key in range(len(added)):
        removed.append(_seconds(partial(matcher.remove, ("fresh", key))))
    return [
        Result(f"{kind}: load 100,000 rules from JSON", "s", seconds, goal=3, higher_is_better=False),
        Result(f"{kind}: memory of 100,000 rules", "MB", megabytes, goal=100, higher_is_better=False),
        Result(f"{kind}: add one of 100,000, 99th percentile", "us", _p99(added), goal=1_000, higher_is_better=False),
        Result(
            f"{kind}: remove one of 100,000, 99th percentile",
            "us",
            _p99(removed),
            goal=1_000,
            higher_is_better=False,
        ),
    ]


def _p99(seconds: list[float]) -> float:
    """Microseconds; what lies above are collections of Python's garbage collector."""
    return sorted(seconds)[len(seconds) * 99 // 100] * 1e6


def careful(bodies: list[bytes]) -> list[Result]:
    """What the search for repeated keys costs, which `Matcher()` makes and `Matcher(unique_keys=True)` does not."""
    matcher, _, _ = loaded("exact", 10_000, unique_keys=False)
    parse, found = beside(orjson.loads, matcher.match_json, bodies)
    return [
        _of("exact, 10000 rules, repeated keys looked for", found, parse),
        _of("floor: orjson decodes the whole event", parse, parse),
        _of("floor: msgspec decodes the whole event", rate(msgspec.json.decode, bodies), parse),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *rule_sets.SETS], help="which rule sets (default: all)")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest number of rules")
    options: Any = parser.parse_args()
    bodies = [orjson.dumps(event) for event in rule_sets.events(random.Random(7))]
    print(f"{len(bodies)} events of {sum(map(len, bodies)) // len(bodies)} bytes, one thread, CPU time")
    results: list[Result] = []
    for kind in options.sets or rule_sets.SETS:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # so that memory is this set's own
            found = fresh.submit(one_set, kind, options.most, bodies).result()
        for result in found:
            results.append(result)
            print(result, flush=True)
    for result in careful(bodies):
        results.append(result)
        print(result)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")
