"""Folds matches and the clock into the states of one match partition: pure, so that live, simulated and replayed agree.

The clock of a batch is the one from before it: what is decided does not depend on how far the clock lags behind, so the
timers that its progress makes due are rung after its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.automations import Automation
from penstock.events.event import Envelope
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services.engine.match_records import Matched
from penstock.triggers import deduping, machine
from penstock.triggers.decisions import Decision
from penstock.triggers.deduping import UNSEEN, ByState, Deduped
from penstock.triggers.evidence import Evidence
from penstock.triggers.keys import NO_KEY, key_of, partition_of
from penstock.triggers.machine import Step
from penstock.triggers.state import EMPTY, KeyState

NEVER = 1 << 62  # an instant that no clock reaches


class Match(msgspec.Struct, frozen=True, gc=False):
    """One event that belongs to one or more states of this partition."""

    envelope: Envelope
    body: bytes
    arrival: Instant
    matched: tuple[Matched, ...]


class Place(msgspec.Struct, frozen=True, gc=False):
    """One state: whose, and for which key; or, deduped, for which value of `dedupe: {by}`."""

    automation: str
    when_digest: str
    key: str
    deduped: bool = False

    def id(self, namespace: str) -> str:
        """The state's row."""
        more = ("dedupe",) if self.deduped else ()
        return derived_id(namespace, self.automation, self.when_digest, self.key, *more)


AnyState = KeyState | ByState
AutomationOf = Callable[[Place], Automation | None]


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A state after the batch.  due: the clock at which it must be looked at again (NEVER: only when it is fed)."""

    state: AnyState
    due: Instant = NEVER

    @property
    def empty(self) -> bool:
        """Whether its row can go."""
        return self.state is EMPTY or self.state == UNSEEN


@dataclass(slots=True)
class Folded:
    """What a batch comes to: states that changed, decisions in order, and which events came too late for which rule."""

    kept: dict[Place, Kept] = field(default_factory=dict)
    decided: list[Decision] = field(default_factory=list)
    late: list[tuple[str, Match]] = field(default_factory=list)


class Fold:
    """One batch over the states that it touches. `states` holds them as stored; what is missing there is empty.

    automation_of: the rule of a place, None where it is gone or says something else in `when` now.
    """

    def __init__(self, states: Mapping[Place, AnyState], automation_of: AutomationOf) -> None:
        self._states = dict(states)
        self._automation_of = automation_of
        self.folded = Folded()

    def feed(self, matches: Iterable[Match], clock: Instant) -> None:
        """Take all matches in, in order."""
        for match in matches:
            evidence = Evidence(match.envelope.at(match.arrival), match.envelope.source, match.envelope.id, match.body)
            for place, keys in _by_automation(match):
                automation = self._automation_of(place)
                if automation is not None:
                    self._feed(automation, place, keys, match, evidence, clock)

    def tick(self, places: Iterable[Place], clock: Instant) -> list[tuple[Place, machine.Match]]:
        """Ring what is due at these places.

        Returns what `dedupe` has let through meanwhile, to be fed with `pass_on` before the keys are ticked.
        """
        passed: list[tuple[Place, machine.Match]] = []
        for place in places:
            automation = self._automation_of(place)
            if automation is None:
                self.folded.kept[place] = Kept(UNSEEN if place.deduped else EMPTY)
            elif place.deduped:
                passed += self._let(automation, place, deduping.tick(automation.rule, self._by(place), clock))
            else:
                self._keep(automation, place, machine.tick(automation.rule, place.key, self._of(place), clock))
        return passed

    def pass_on(self, passed: Iterable[tuple[Place, machine.Match]], clock: Instant) -> None:
        """Feed the keys with what `dedupe` let through."""
        for place, match in passed:
            automation = self._automation_of(place)
            if automation is not None:
                self._keep(automation, place, machine.feed(automation.rule, place.key, self._of(place), match, clock))

    def load(self, automation: Automation, place: Place, at: Instant) -> None:
        """The automation was activated: its schedules and watches begin."""
        self._keep(automation, place, machine.load(automation.rule, place.key, self._of(place), at))

    def lose(self, places: Iterable[Place], until: Instant) -> None:
        """Events that arrived before were lost unread."""
        for place in places:
            automation = self._automation_of(place)
            if automation is not None and not place.deduped:
                self._keep(automation, place, machine.gap(automation.rule, place.key, self._of(place), until))

    def learn(self, states: Mapping[Place, AnyState]) -> None:
        """More stored states; those that have changed since are newer."""
        self._states = {**states, **self._states}

    def knows(self, place: Place) -> bool:
        """Whether its state is at hand."""
        return place in self._states or place in self.folded.kept

    def _feed(
        self,
        automation: Automation,
        place: Place,
        keys: tuple[tuple[str, tuple[int, ...]], ...],
        match: Match,
        evidence: Evidence,
        clock: Instant,
    ) -> None:
        late = False
        if place.deduped:
            found = deduping.dedupe(automation.rule, self._by(place), evidence, match.arrival, keys, clock)
            self.pass_on(self._let(automation, place, found), clock)
            late = found.late
        else:
            for key, leaves in keys:
                at = Place(place.automation, place.when_digest, key)
                given = machine.Match(leaves, evidence, match.arrival)
                step = machine.feed(automation.rule, key, self._of(at), given, clock)
                self._keep(automation, at, step)
                late = late or step.late
        if late and not automation.rule.accept_late:
            self.folded.late.append((place.automation, match))

    def _let(self, automation: Automation, place: Place, found: Deduped) -> list[tuple[Place, machine.Match]]:
        self.folded.kept[place] = Kept(found.state, _due(found.wake, found.expires))
        self.folded.decided += found.decisions
        return [(Place(place.automation, place.when_digest, key), match) for key, match in found.passed]

    def _keep(self, automation: Automation, place: Place, step: Step) -> None:
        self.folded.kept[place] = Kept(step.state, _due(step.wake, step.expires))
        self.folded.decided += step.decisions

    def _of(self, place: Place) -> KeyState:
        found = self._state(place)
        return found if isinstance(found, KeyState) else EMPTY

    def _by(self, place: Place) -> ByState:
        found = self._state(place)
        return found if isinstance(found, ByState) else UNSEEN

    def _state(self, place: Place) -> AnyState | None:
        kept = self.folded.kept.get(place)
        return kept.state if kept is not None else self._states.get(place)


def home(automation: Automation, key: str, partitions: int) -> int:
    """The match partition of a key; all keys of a rule with `dedupe`, whose `by` may span them, share one."""
    shared = NO_KEY if automation.rule.stages.dedupe is not None else key
    return partition_of(automation.namespace, automation.name, shared, partitions)


def places(matches: Iterable[Match], automation_of: AutomationOf) -> set[Place]:
    """The states that these matches touch."""
    found: set[Place] = set()
    for match in matches:
        for each in match.matched:
            found.add(Place(each.automation, each.when_digest, each.key))
        for place, _ in _by_automation(match):
            automation = automation_of(place)
            if place.deduped and automation is not None:
                found.add(place)
    return found


def encode(state: AnyState) -> bytes:
    """The stored form of either kind."""
    return msgspec.msgpack.encode(state)


def _by_automation(match: Match) -> list[tuple[Place, tuple[tuple[str, tuple[int, ...]], ...]]]:
    """The rules that an event is for, each with its keys and the leaves hit there.

    The place is that of `dedupe` where the record says by which value, else the first key's.
    """
    found: dict[tuple[str, str, str | None], list[tuple[str, tuple[int, ...]]]] = {}
    for each in match.matched:
        found.setdefault((each.automation, each.when_digest, each.by), []).append((each.key, each.leaves))
    return [
        (Place(name, digest, keys[0][0] if by is None else by, deduped=by is not None), tuple(keys))
        for (name, digest, by), keys in found.items()
    ]


def _due(wake: Instant | None, expires: Instant | None) -> Instant:
    found = wake if wake is not None else expires
    return NEVER if found is None else min(found, NEVER)


def by_of(automation: Automation, mapping: Mapping[str, Any]) -> str | None:
    """The value of `dedupe: {by}` for an event; None for a rule without `dedupe`."""
    spec = automation.rule.stages.dedupe
    return None if spec is None else key_of(mapping, spec.by)
