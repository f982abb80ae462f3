"""What each trigger must do, by brute force over the whole history of one key; slow, and with nothing forgotten.

All read the events of one key in order of arrival, drop late ones, and give (at in seconds, ids) of each firing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product
from statistics import fmean

from tests.support.core_rules import Told

Fired = tuple[int, frozenset[str]]
LATE = 12  # seconds


def in_time(events: Sequence[Told]) -> list[Told]:
    """Those that take part."""
    return [event for event in events if event.arrival - event.time <= LATE]


def counted(events: Sequence[Told], count: int, within: int) -> list[Fired]:
    """Any `count` of those since the last firing, the new one among them, no more than `within` apart."""
    found: list[Fired] = []
    since: list[Told] = []
    for new in events:
        since.append(new)
        runs = [
            run
            for run in combinations(sorted(since, key=lambda one: (one.time, since.index(one))), count)
            if new in run and run[-1].time - run[0].time <= within
        ]
        if runs:
            found.append((new.arrival, frozenset(one.id for one in min(runs, key=lambda run: [o.time for o in run]))))
            since = []
    return found


def unanswered(events: Sequence[Told], asks: str, answers: str, within: int, grace: int) -> list[Fired]:
    """Each question by itself: whether anything that may answer it came while it was open."""
    found: list[Fired] = []
    for place, question in enumerate(events):
        if question.type != asks:
            continue
        start = min(question.time, question.arrival)
        closes = max(start + within + grace, question.arrival)
        if not any(
            other.type == answers
            and index != place
            and start <= other.time <= start + within
            and not (other.time == start and index < place)
            and other.arrival <= closes
            for index, other in enumerate(events)
        ):
            found.append((closes, frozenset({question.id})))
    return found


def silences(events: Sequence[Told], within: int, grace: int, until: int) -> list[tuple[int, str, frozenset[str]]]:
    """Second by second: the silence is told once, and the next match ends it."""
    found: list[tuple[int, str, frozenset[str]]] = []
    last: tuple[int, str] | None = None
    told = False
    for now in range(until + 1):
        for event in (each for each in events if each.arrival == now):
            time = min(event.time, now)
            if last is not None and time < last[0]:
                continue
            if told:
                found.append((now, "resolved", frozenset({event.id})))
            last, told = (time, event.id), False
        if last is not None and not told and now >= last[0] + within + grace:
            found.append((now, "fired", frozenset({last[1]})))
            told = True
    return found


def composed(events: Sequence[Told], types: Sequence[str], fulfils: Callable[[Sequence[Told]], bool]) -> list[Fired]:
    """Any choice of one event for each type since the last firing; the earliest of those that fulfil."""
    found: list[Fired] = []
    since: list[Told] = []
    for new in events:
        if new.type not in types:
            continue
        since.append(new)
        ordered = sorted(since, key=lambda one: (one.time, since.index(one)))
        choices = [
            choice for choice in product(*([e for e in ordered if e.type == t] for t in types)) if fulfils(choice)
        ]
        if choices:
            first = min(choices, key=lambda choice: sorted(ordered.index(one) for one in choice))
            found.append((new.arrival, frozenset(one.id for one in first)))
            since = []
    return found


def sequence(events: Sequence[Told], types: Sequence[str], within: int | None) -> list[Fired]:
    """In order of (time, arrival), no event twice."""

    def fulfils(choice: Sequence[Told]) -> bool:
        places = [(one.time, events.index(one)) for one in choice]
        return all(a < b for a, b in pairwise(places)) and _near(choice, within)

    return composed(events, types, fulfils)


def all_of(events: Sequence[Told], types: Sequence[str], within: int | None) -> list[Fired]:
    """In any order."""
    return composed(events, types, lambda choice: _near(choice, within))


def _near(choice: Sequence[Told], within: int | None) -> bool:
    times = [one.time for one in choice]
    return within is None or max(times) - min(times) <= within


@dataclass
class Gauge:
    """A metric, judged after each sample and at each second; `value` of all samples so far.

    clear: None: once the comparison no longer holds.
    """

    over: int
    stat: str
    op: str
    threshold: float
    lasts: int
    clear: float | None
    samples: list[Told] = field(default_factory=list)
    since: int | None = None
    fired: bool = False

    def play(self, events: Sequence[Told], until: int) -> list[tuple[int, str, float]]:
        """(second, kind, value)."""
        found: list[tuple[int, str, float]] = []
        for now in range(until + 1):
            for event in (each for each in events if each.arrival == now):
                if event.time > now - self.over:
                    self.samples.append(event)
                    found += self._judged(now)
            found += self._judged(now) if self.samples else []  # before the first one nobody knows of the key
        return found

    def _judged(self, now: int) -> list[tuple[int, str, float]]:
        value = self._value(now)
        holds = value is not None and self._compares(value, self.op, self.threshold)
        if self.fired:
            if value is not None and self._cleared(value, holds):
                self.fired = False
                return [(now, "resolved", value)]
            return []
        self.since = (now if self.since is None else self.since) if holds else None
        if self.since is None or value is None or now - self.since < self.lasts:
            return []
        self.since, self.fired = None, True
        return [(now, "fired", value)]

    def _cleared(self, value: float, holds: bool) -> bool:
        if self.clear is None:
            return not holds
        return value < self.clear if self.op in (">", ">=") else value > self.clear

    def _value(self, now: int) -> float | None:
        inside = [one for one in self.samples if now - self.over < one.time <= now]
        values = [one.value for one in sorted(inside, key=lambda one: (one.time, self.samples.index(one)))]
        simple: dict[str, float] = {"count": len(values), "sum": sum(values), "rate": len(values) / self.over}
        if self.stat in simple:
            return simple[self.stat]
        if not values:
            return None
        if self.stat.startswith("p"):
            return float(sorted(values)[math.ceil(int(self.stat[1:]) / 100 * len(values)) - 1])
        shown = {"avg": fmean(values), "min": min(values), "max": max(values), "delta": values[-1] - values[0]}
        return float(shown[self.stat])

    @staticmethod
    def _compares(value: float, op: str, bound: float) -> bool:
        return {">": value > bound, ">=": value >= bound, "<": value < bound, "<=": value <= bound}[op]
