"""Fold a batch of matches into windows: pure, so that live, simulated and replayed come out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.events.event import Envelope
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services.engine.match_records import Matched
from penstock.triggers import count
from penstock.triggers.count import EventTrigger, Window
from penstock.triggers.evidence import Decided, Evidence


@dataclass(frozen=True, slots=True)
class Match:
    """One event that belongs to one or more windows of this partition."""

    envelope: Envelope
    body: bytes
    arrival: Instant
    matched: tuple[Matched, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One window: whose, and for which key."""

    automation: str
    when_digest: str
    key: str

    def id(self, namespace: str) -> str:
        """The window's row."""
        return derived_id(namespace, self.automation, self.when_digest, self.key)


@dataclass(slots=True)
class Folded:
    """The windows that changed, what was decided in order, and which events came too late for which automation."""

    windows: dict[Place, Window] = field(default_factory=dict)
    decided: list[tuple[Place, Decided]] = field(default_factory=list)
    late: list[tuple[str, Match]] = field(default_factory=list)


def places(matches: Iterable[Match]) -> set[Place]:
    """The windows that these matches touch."""
    return {Place(*_parts(each)) for match in matches for each in match.matched}


def fold(
    matches: Iterable[Match], windows: Mapping[Place, Window], trigger_of: Callable[[Place], EventTrigger | None]
) -> Folded:
    """Take all matches in, in order. A window whose rule is gone (`trigger_of` gives None) takes nothing in."""
    folded = Folded()
    for match in matches:
        evidence = Evidence(match.envelope.at(match.arrival), match.envelope.source, match.envelope.id, match.body)
        for each in match.matched:
            place = Place(*_parts(each))
            trigger = trigger_of(place)
            if trigger is None:
                continue
            if not trigger.accept_late and count.is_late(trigger, evidence.time, match.arrival):
                folded.late.append((place.automation, match))
            before = folded.windows.get(place) or windows.get(place, count.EMPTY)
            after, decided = count.step(trigger, before, evidence, arrival=match.arrival)
            if after is not before:
                folded.windows[place] = after
            if decided is not None:
                folded.decided.append((place, decided))
    return folded


def _parts(matched: Matched) -> tuple[str, str, str]:
    return matched.automation, matched.when_digest, matched.key
