"""Nested counts and composites by brute force: every firing is remembered, every choice is tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product

from tests.support.core_rules import Told

from penstock.events.instants import SECOND
from penstock.triggers import forms as f


@dataclass(frozen=True)
class Firing:
    """When it fired by event time, as which event of the stream, and what took part."""

    time: int
    number: int
    events: frozenset[str]


@dataclass
class Naive:
    """One trigger of a tree; `below` are its children."""

    trigger: f.Trigger
    below: list[Naive] = field(default_factory=list)
    matches: list[Told] = field(default_factory=list)
    kept: list[list[Firing]] = field(default_factory=list)

    @staticmethod
    def of(trigger: f.Trigger) -> Naive:
        """The whole tree."""
        below = [Naive.of(child) for child in f.children(trigger)]
        return Naive(trigger, below, [], [[] for _ in below])

    def feed(self, event: Told, number: int) -> Firing | None:
        """One event in time."""
        if isinstance(self.trigger, f.Count):
            return self._counted(self.trigger, event, number)
        for kept, child in zip(self.kept, self.below, strict=True):
            fired = child.feed(event, number)
            kept += [fired] if fired else []
        choices = [choice for choice in self._choices() if any(one.number == number for one in choice)]
        if not choices:
            return None
        first = min(choices, key=lambda choice: sorted((one.time, one.number) for one in choice))
        self.kept = [[] for _ in self.below]
        return Firing(max(one.time for one in first), number, frozenset().union(*(one.events for one in first)))

    def _counted(self, trigger: f.Count, event: Told, number: int) -> Firing | None:
        if not trigger.leaf.pattern.matches(event.to_mapping()):
            return None
        self.matches.append(event)
        for run in combinations(sorted(self.matches, key=lambda one: one.time), trigger.count):
            near = run[-1].time - run[0].time <= (trigger.within or 0) // SECOND
            if event in run and (near or trigger.count == 1):
                self.matches = []
                return Firing(run[-1].time, number, frozenset(one.id for one in run))
        return None

    def _choices(self) -> Iterator[Sequence[Firing]]:
        if isinstance(self.trigger, f.Sequence):
            yield from (each for each in product(*self.kept) if self._near(each) and _in_order(each))
        elif isinstance(self.trigger, f.AtLeast):
            for some in combinations(self.kept, self.trigger.n):
                yield from (each for each in product(*some) if self._near(each))

    def _near(self, choice: Sequence[Firing]) -> bool:
        within = self.trigger.within if isinstance(self.trigger, f.Sequence | f.AtLeast) else None
        times = [one.time for one in choice]
        return within is None or max(times) - min(times) <= within // SECOND


def _in_order(choice: Sequence[Firing]) -> bool:
    apart = all(not one.events & other.events for one, other in combinations(choice, 2))
    return apart and all((one.time, one.number) < (other.time, other.number) for one, other in pairwise(choice))
