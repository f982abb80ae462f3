"""A tiny engine for the core's properties: one rule, states as bytes if wanted, and a clock that lags behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from penstock.events.instants import Instant
from penstock.triggers import machine
from penstock.triggers.decisions import Decision
from penstock.triggers.forms import Rule, leaves
from penstock.triggers.keys import NO_KEY, key_of
from penstock.triggers.machine import Match, Step
from penstock.triggers.simulation import evidence_of, instant_of
from penstock.triggers.state import EMPTY, KeyState, decode, encode


class CoreEngine:
    """Feeds one rule (without `dedupe`); `states` holds what is not empty, by key."""

    def __init__(self, rule: Rule, *, stored: bool = False) -> None:
        self.rule, self.stored = rule, stored
        self.states: dict[str, KeyState] = {}
        self.wakes: dict[str, Instant] = {}
        self.expiries: dict[str, Instant] = {}
        self.late: list[str] = []
        self.largest = 0

    def play(self, events: Iterable[dict[str, Any]], lags: Iterator[int], until: Instant) -> Iterator[Decision]:
        """The decisions; before each event the clock is so many microseconds behind its arrival, or where it was."""
        clock: Instant | None = None
        for event in events:
            arrival = instant_of(event["recordedtime"])
            if clock is None:
                clock = arrival - 1
                yield from self.load(arrival)
            clock = max(clock, arrival - 1 - next(lags))
            yield from self.tick(clock)
            yield from self.feed(event, arrival, clock)
        yield from self.tick(until)

    def load(self, at: Instant) -> Iterator[Decision]:
        """The rule was activated."""
        if self.rule.needs_loading:
            yield from self._keep(NO_KEY, machine.load(self.rule, NO_KEY, EMPTY, at))

    def feed(self, event: dict[str, Any], arrival: Instant, clock: Instant) -> Iterator[Decision]:
        """One event."""
        keys: dict[str, list[int]] = {}
        for number, leaf in enumerate(leaves(self.rule)):
            if leaf.pattern.matches(event):
                keys.setdefault(key_of(event, leaf.per), []).append(number)
        for key, numbers in keys.items():
            state = self.states.get(key, EMPTY)
            match = Match(tuple(numbers), evidence_of(event, arrival), arrival)
            step = machine.feed(self.rule, key, state, match, clock)
            self.late += [event["id"]] if step.late else []
            yield from self._keep(key, step)

    def tick(self, clock: Instant) -> Iterator[Decision]:
        """All keys that asked for it; those whose time is over go unread."""
        for key in [key for key, at in self.expiries.items() if at <= clock]:
            del self.states[key], self.expiries[key]
        for key in sorted(key for key, at in self.wakes.items() if at <= clock):
            yield from self._keep(key, machine.tick(self.rule, key, self.states[key], clock))

    def _keep(self, key: str, step: Step) -> Iterator[Decision]:
        for kept in (self.states, self.wakes, self.expiries):
            kept.pop(key, None)
        if step.state != EMPTY:
            body = encode(step.state)
            self.largest = max(self.largest, len(body))
            self.states[key] = decode(body) if self.stored else step.state
            if step.wake is not None:
                self.wakes[key] = step.wake
            elif step.expires is not None:
                self.expiries[key] = step.expires
        yield from step.decisions
