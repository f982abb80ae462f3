"""The states of a rule's tree of triggers, one form a machine; tags and fields are the stored form (`state.FORMAT`)."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import Fired


class Matches(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """The matches that may still be part of a firing, in order of (event time, arrival)."""

    events: tuple[Evidence, ...]


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """The questions not yet answered, and when answers came that a question delivered later may have missed.

    starts, questions: side by side, in order of the start: the question's time, or its arrival where it is stamped
    ahead.  answers: event times, in order.
    """

    starts: tuple[Instant, ...] = ()
    questions: tuple[Evidence, ...] = ()
    answers: tuple[Instant, ...] = ()


class Watch(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """The last sign of life, and whether the silence after it has been told.

    last: its time, or its arrival where it is stamped ahead; the loading, before there was any.
    """

    last: Instant
    event: Evidence | None = None
    quiet: bool = False


class Group(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """The firings of each child that may still be part of a choice, and the children's own states."""

    fired: tuple[tuple[Fired, ...], ...]
    children: tuple[NodeState | None, ...]


class Pane(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The samples of one part of the window, folded.  first and last: their times and values by event time."""

    index: int  # its time, in pane widths
    count: int
    total: float
    low: float
    high: float
    first: tuple[Instant, float]
    last: tuple[Instant, float]
    bins: dict[int, int] = {}  # for percentiles alone


class Samples(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Times and values side by side, in order of (event time, arrival); with panes, only those stamped ahead."""

    times: tuple[Instant, ...] = ()
    values: tuple[float, ...] = ()
    panes: tuple[Pane, ...] = ()


class Measured(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """The samples of the window, and where the comparison stands.

    judged: when it was last.  since: since when it has held without having fired.  event: the last sample's.
    """

    samples: Samples
    judged: Instant
    since: Instant | None = None
    fired: bool = False
    event: Evidence | None = None


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """The last value seen, as text, and a change that waits for `for` to run out.

    time: the value's, or its arrival where it is stamped ahead.  since, event, before: of the change that waits.
    """

    time: Instant
    text: str
    since: Instant | None = None
    event: Evidence | None = None
    before: str = ""


class Next(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """The next due time."""

    due: Instant


NodeState: TypeAlias = Matches | Waiting | Watch | Group | Measured | Seen | Next
