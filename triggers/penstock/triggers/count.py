"""The trigger `event`, with `count` and `within`: at the count-th match inside a sliding window of event time."""

from __future__ import annotations

from bisect import insort_right
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from penstock.events.instants import SECOND, Instant
from penstock.triggers.evidence import Decided, Evidence
from penstock.triggers.pattern import Pattern

FORMAT = 1
LATENESS = 30 * SECOND
KEEP_LATE = 24 * 3600 * SECOND  # how long a window is kept for events that `late: accept` lets in
BODIES = 48 * 1024  # bytes of event JSON kept in one window; then the oldest are kept without


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """When a matching event is the count-th within `within`.

    pattern: type and `where`, together.  per: paths of the key.  within, lateness: microseconds.
    """

    pattern: Pattern
    per: tuple[str, ...] = ()
    count: int = 1
    within: int | None = None
    lateness: int = LATENESS
    accept_late: bool = False

    @property
    def stateless(self) -> bool:
        """Whether one event decides alone: it has no window, and fires for an event of any age."""
        return self.count == 1


class Window(msgspec.Struct, frozen=True, gc=False):
    """The matches of one key that may still be part of a firing, in order of (event time, arrival)."""

    v: int = FORMAT
    matches: tuple[Evidence, ...] = ()


EMPTY = Window()


def is_late(trigger: EventTrigger, time: Instant, arrival: Instant) -> bool:
    """Whether an event comes too late to take part: more than `lateness` after its time."""
    return arrival - time > trigger.lateness


def step(trigger: EventTrigger, window: Window, match: Evidence, *, arrival: Instant) -> tuple[Window, Decided | None]:
    """Take one match in; fire, and empty the window, when it completes one.

    arrival: its append time; `at` of the decision.  A repeated (source, id) in the window changes nothing, and so does
    an event that is late (the caller tells it, see `is_late`).  A window may close round events on either side of the
    one just delivered; where several do, the earliest fires.
    Source: sliding windows, Akidau et al., The Dataflow Model, PVLDB 8(12), 2015.
    """
    if trigger.stateless:
        return window, Decided("fired", arrival, (match,))
    late = is_late(trigger, match.time, arrival)
    if (late and not trigger.accept_late) or any(match.key == other.key for other in window.matches):
        return window, None
    matches = _pruned(trigger, window.matches, arrival)
    insort_right(matches, match, key=lambda each: each.time)
    complete = _complete(matches, match, trigger.count, trigger.within)
    if complete:
        return EMPTY, Decided("fired", arrival, complete)
    return Window(matches=_within_budget(matches)), None


def expires_at(trigger: EventTrigger, window: Window) -> Instant | None:
    """When the clock makes every match in the window too old to matter; None for an empty window."""
    if not window.matches:
        return None
    return window.matches[-1].time + _span(trigger)


def encode(window: Window) -> bytes:
    """The stored form."""
    return msgspec.msgpack.encode(window)


def decode(body: bytes) -> Window:
    """From the stored form, of this format version or the one before."""
    return msgspec.msgpack.decode(body, type=Window)


def _span(trigger: EventTrigger) -> int:
    kept = KEEP_LATE if trigger.accept_late else 0
    return (trigger.within or 0) + trigger.lateness + kept


def _pruned(trigger: EventTrigger, matches: tuple[Evidence, ...], now: Instant) -> list[Evidence]:
    """Without what no event can join any more: whatever may still come is dated `now - lateness` or later."""
    horizon = now - _span(trigger)
    return [each for each in matches if each.time >= horizon]


def _complete(matches: list[Evidence], new: Evidence, count: int, within: int | None) -> tuple[Evidence, ...]:
    """The earliest run of `count` neighbours that holds the new match and spans no more than `within`."""
    place = next(index for index, each in enumerate(matches) if each is new)
    for start in range(max(0, place - count + 1), min(place, len(matches) - count) + 1):
        run = matches[start : start + count]
        if within is None or run[-1].time - run[0].time <= within:
            return tuple(run)
    return ()


def _within_budget(matches: list[Evidence]) -> tuple[Evidence, ...]:
    """The newest bodies that fit into BODIES; the identities and times of all."""
    left = BODIES
    kept: list[Evidence] = []
    for each in reversed(matches):
        left -= len(each.body)
        kept.append(each if left >= 0 else each.without_body())
    return tuple(reversed(kept))


def is_sorted(window: Window) -> bool:
    """Whether the window keeps its order: an invariant that tests lean on."""
    return all(a.time <= b.time for a, b in pairwise(window.matches))
