"""What goes into a trigger's state machine and what comes out of it: hits and firings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence

Reading: TypeAlias = float | str | None  # of a metric's leaf the sample, of a `changed` leaf the value's text
NEVER: Instant = 1 << 62  # as "expires": it does not

_FORGOTTEN = 14  # bytes that an event takes of which only the time is left
_LARGE = 24 * 1024  # bytes of a body


class Hit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event for one key, ready to be taken in, or held back until `taken`.

    taken: the clock at which it is.  leaves: numbers of the leaves it matched.  readings: beside them, what
    `metric` and `changed` read.  late: it came more than `lateness` after its time, and is accepted nevertheless.
    """

    taken: Instant
    event: Evidence
    leaves: tuple[int, ...]
    readings: tuple[Reading, ...] = ()
    late: bool = False

    def reading(self, leaf: int) -> Reading:
        """What a leaf of this hit read."""
        return self.readings[self.leaves.index(leaf)]


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When something is taken in: `now` on the machine's clock, and its number among all that this key took in.

    limit: how far the caller's clock has got, for what asks whether it is behind.
    """

    now: Instant
    number: int
    limit: Instant


class Fired(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A trigger fired: `time` is that of its latest event, or its deadline; `number` orders equal times.

    due: the deadline or due time, where a timer decided.  value, from_: JSON.
    """

    time: Instant
    number: int
    events: tuple[Evidence, ...]
    due: Instant | None = None
    kind: Literal["fired", "resolved"] = "fired"
    value: Any = None
    from_: Any = None

    @property
    def place(self) -> tuple[Instant, int]:
        """Its place in the order of event time."""
        return self.time, self.number


Firings: TypeAlias = tuple[Fired, ...]


def joined(parts: Iterable[tuple[Evidence, ...]]) -> tuple[Evidence, ...]:
    """The events of several firings, each once, in order of event time."""
    found = {event.key: event for events in parts for event in events}
    return tuple(sorted(found.values(), key=_time))


def within_budget(events: tuple[Evidence, ...], budget: int) -> tuple[Evidence, ...]:
    """As much of the newest events as fits into so many bytes: the oldest lose their bodies, then their identity.

    Their times stay. events: in order of time.
    """
    size = 0
    for each in events:
        size += len(each.body) + len(each.id) + len(each.source) + _FORGOTTEN
    return events if size <= budget else _trimmed(events, budget)


def _trimmed(events: tuple[Evidence, ...], budget: int) -> tuple[Evidence, ...]:
    names = budget * 3 // 4
    bodies = budget - min(names, sum(len(each.id) + len(each.source) + _FORGOTTEN for each in events))
    kept: list[Evidence] = []
    for each in reversed(events):
        names -= len(each.id) + len(each.source) + _FORGOTTEN
        bodies -= len(each.body)
        if names < 0:
            kept.append(Evidence(each.time, "", ""))
        else:
            kept.append(each if bodies >= 0 else each.without_body())
    return tuple(reversed(kept))


def light(event: Evidence) -> Evidence:
    """One event as it is kept by itself: a large body is not."""
    return event if len(event.body) <= _LARGE else event.without_body()


def named(events: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Without those whose identity was forgotten."""
    return events if all(each.id for each in events) else tuple(each for each in events if each.id)


def _time(event: Evidence) -> Instant:
    return event.time
