"""Rules over recorded events with a virtual clock: the live engine's core, without services and side effects."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Protocol, cast

import msgspec

from penstock.events.errors import PenstockError
from penstock.events.event import Event
from penstock.events.instants import Instant, to_instant
from penstock.triggers import deduping, machine
from penstock.triggers.decisions import Decision
from penstock.triggers.deduping import UNSEEN, ByState, Deduped
from penstock.triggers.evidence import Evidence
from penstock.triggers.forms import Rule, leaves
from penstock.triggers.keys import NO_KEY, key_of
from penstock.triggers.machine import Match, Step
from penstock.triggers.matcher import Matcher
from penstock.triggers.rehearsal import Rehearsal
from penstock.triggers.state import EMPTY, KeyState


class NoTimeError(PenstockError):
    """The first event of a simulation says neither when it occurred nor when it was recorded."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            f"event {event_id!r} has no `time` and no `recordedtime`, and no event before it set the clock"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a state lives: of a rule (its index) and a key, or a value of `dedupe: {by}`."""

    rule: int
    key: str
    deduped: bool = False


class Compiled(Protocol):
    """An automation that was compiled."""

    @property
    def rule(self) -> Rule:
        """What the core makes of it."""
        ...


class Loaded(Protocol):
    """A set of them: what `penstock.automations.load` returns."""

    @property
    def rules(self) -> Iterable[Compiled]:
        """Those without errors."""
        ...


def simulate(
    rules: Loaded | Iterable[Compiled | Rule],
    events: Iterable[Event | Mapping[str, Any]],
    until: Instant | datetime | None = None,
    *,
    assume_run_time: int | None = None,
) -> Iterator[Decision]:
    """The decisions of the rules over the events, in order of time.

    rules: as `penstock.automations.load` makes them.
    events: in order of arrival: an event arrives at its `recordedtime`, else at its `time`, and never before the one
    before it.  until: where the clock stops (microseconds or an aware datetime); None: at the last arrival, and what
    `order` held back is released.  assume_run_time: microseconds that a firing's actions take; None: none, so that no
    `mode` drops anything.
    Raises NoTimeError where nothing says when the first event arrived.
    """
    end = to_instant(until) if isinstance(until, datetime) else until
    given: Iterable[Compiled | Rule] = rules if isinstance(rules, Iterable) else rules.rules
    compiled = tuple(each if isinstance(each, Rule) else each.rule for each in given)
    found = Simulation(compiled).run(events, end)
    return found if assume_run_time is None else Rehearsal(compiled, assume_run_time).over(found)


class Simulation:
    """One run; decisions come out as the clock passes them."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = {index: rule for index, rule in enumerate(rules)}
        self._matcher = Matcher()
        self._per: dict[tuple[int, int], tuple[str, ...]] = {}
        for index, rule in self.rules.items():
            for number, leaf in enumerate(leaves(rule)):
                self._matcher.add((index, number), leaf.pattern)
                self._per[index, number] = leaf.per
        self._states: dict[Place, KeyState] = {}
        self._by: dict[Place, ByState] = {}
        self._wakes: list[tuple[Instant, bool, int, Place]] = []
        self._due: dict[Place, Instant] = {}
        self._ticket = count()
        self._seen: set[tuple[str, str]] = set()
        self._clock: Instant | None = None

    def run(self, events: Iterable[Event | Mapping[str, Any]], until: Instant | None) -> Iterator[Decision]:
        """All decisions."""
        for each in events:
            event = each.to_mapping() if isinstance(each, Event) else each
            arrival = self._arrival(event)
            if until is not None and arrival > until:
                break
            if self._clock is None:
                yield from self._load(arrival)
            yield from self._pass(arrival - 1)
            self._clock = arrival
            yield from self._take(event, arrival)
        if self._clock is not None:
            yield from self._pass(self._clock if until is None else until)
        if until is None:
            yield from self._release()

    @property
    def waiting(self) -> set[Place]:
        """Where there is any state now."""
        return {*self._states, *self._by}

    def _arrival(self, event: Mapping[str, Any]) -> Instant:
        said = event.get("recordedtime") or event.get("time")
        if said is None:
            if self._clock is None:
                raise NoTimeError(str(event.get("id")))
            return self._clock
        arrival = instant_of(said)
        return arrival if self._clock is None else max(arrival, self._clock)

    def _load(self, at: Instant) -> Iterator[Decision]:
        for index, rule in self.rules.items():
            if rule.needs_loading:
                yield from self._keep(Place(index, NO_KEY), machine.load(rule, NO_KEY, EMPTY, at))

    def _take(self, event: Mapping[str, Any], arrival: Instant) -> Iterator[Decision]:
        """One event, for every rule and key that it concerns, in the order of the rules."""
        identity = str(event["source"]), str(event["id"])
        if identity in self._seen:
            return
        self._seen.add(identity)
        hits: dict[int, dict[str, list[int]]] = defaultdict(dict)
        matched = cast(set[tuple[int, int]], self._matcher.match(event))
        for index, number in sorted(matched):
            key = key_of(event, self._per[index, number])
            hits[index].setdefault(key, []).append(number)
        if not hits:
            return
        evidence = evidence_of(event, arrival)
        for index, keys in hits.items():
            grouped = tuple((key, tuple(numbers)) for key, numbers in keys.items())
            yield from self._feed(index, event, evidence, arrival, grouped)

    def _feed(
        self,
        index: int,
        event: Mapping[str, Any],
        evidence: Evidence,
        arrival: Instant,
        keys: tuple[tuple[str, tuple[int, ...]], ...],
    ) -> Iterator[Decision]:
        rule = self.rules[index]
        if rule.stages.dedupe is None:
            for key, numbers in keys:
                yield from self._into(Place(index, key), Match(numbers, evidence, arrival), arrival - 1)
            return
        place = Place(index, key_of(event, rule.stages.dedupe.by), deduped=True)
        found = deduping.dedupe(rule, self._by.get(place, UNSEEN), evidence, arrival, keys, arrival - 1)
        yield from self._let(place, found, arrival - 1)

    def _into(self, place: Place, match: Match, clock: Instant) -> Iterator[Decision]:
        state = self._states.get(place, EMPTY)
        yield from self._keep(place, machine.feed(self.rules[place.rule], place.key, state, match, clock))

    def _let(self, place: Place, found: Deduped, clock: Instant) -> Iterator[Decision]:
        """What dedupe let through goes on to its keys."""
        if found.state == UNSEEN:
            self._by.pop(place, None)
        else:
            self._by[place] = found.state
        self._wake(place, found.wake if found.wake is not None else found.expires)
        yield from found.decisions
        for key, match in found.passed:
            yield from self._into(Place(place.rule, key), match, clock)

    def _keep(self, place: Place, step: Step) -> Iterator[Decision]:
        if step.state is EMPTY:
            self._states.pop(place, None)
        else:
            self._states[place] = step.state
        self._wake(place, step.wake if step.wake is not None else step.expires)
        yield from step.decisions

    def _wake(self, place: Place, at: Instant | None) -> None:
        if at is None:
            self._due.pop(place, None)
        elif self._due.get(place) != at:
            self._due[place] = at
            heapq.heappush(self._wakes, (at, not place.deduped, next(self._ticket), place))  # events before timers

    def _pass(self, until: Instant) -> Iterator[Decision]:
        """Every timer up to an instant, at its own."""
        while self._wakes and self._wakes[0][0] <= until:
            at, _, _, place = heapq.heappop(self._wakes)
            if self._due.get(place) != at:
                continue  # it was moved
            del self._due[place]
            rule = self.rules[place.rule]
            if place.deduped:
                yield from self._let(place, deduping.tick(rule, self._by.get(place, UNSEEN), at), at - 1)
            else:
                state = self._states.get(place, EMPTY)
                yield from self._keep(place, machine.tick(rule, place.key, state, at))

    def _release(self) -> Iterator[Decision]:
        """The clock has stopped; what `order` holds back is taken in all the same, each key up to its last one."""
        found: list[Decision] = []
        for place in list(self._by):
            while (by := self._by.get(place)) is not None and by.held:
                at = by.held[0].taken
                found += self._let(place, deduping.tick(self.rules[place.rule], by, at), at - 1)
        for place in list(self._states):
            while (state := self._states.get(place)) is not None and state.held:
                at = state.held[0].taken
                found += self._keep(place, machine.tick(self.rules[place.rule], place.key, state, at))
        yield from sorted(found, key=lambda each: each.at)


def evidence_of(event: Mapping[str, Any], arrival: Instant) -> Evidence:
    """An event as evidence; one without `time` takes its arrival."""
    said = event.get("time")
    time = arrival if said is None else instant_of(said)
    return Evidence(time, str(event["source"]), str(event["id"]), msgspec.json.encode(event))


def instant_of(value: object) -> Instant:
    """A time of an event, as RFC 3339 text or as a datetime.  Raises msgspec.ValidationError for what is none."""
    return to_instant(value if isinstance(value, datetime) else msgspec.convert(value, datetime))
