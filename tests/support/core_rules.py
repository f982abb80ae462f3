"""Random rules and streams for the core's properties, on a grid of whole seconds so that borders are hit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from penstock.events.instants import SECOND, format_instant
from penstock.triggers import Pattern
from penstock.triggers import forms as f

TYPES = ("a", "b", "c")
LATENESS = 12 * SECOND
NO_STAGES = f.Stages()


def leaf(type_: str, per: f.Per = ("subject",)) -> f.Leaf:
    """Where events of one type come in."""
    return f.Leaf(Pattern({"type": [type_]}), per)


def rule(trigger: f.Trigger, stages: f.Stages = NO_STAGES, **keys: Any) -> f.Rule:
    """A rule of the namespace `default`."""
    return f.Rule("default", "r", "digest", trigger, stages, **{"lateness": LATENESS} | keys)


@dataclass(frozen=True)
class Told:
    """An event of a stream: times in seconds."""

    id: str
    type: str
    subject: str
    time: int
    arrival: int
    value: Any

    def to_mapping(self) -> dict[str, Any]:
        """As the simulator reads it."""
        return {
            "id": self.id,
            "source": "/test",
            "type": self.type,
            "subject": self.subject,
            "time": format_instant(self.time * SECOND),
            "recordedtime": format_instant(self.arrival * SECOND),
            "data": {"v": self.value},
        }


def mappings(events: Iterable[Told]) -> list[dict[str, Any]]:
    """All of a stream."""
    return [event.to_mapping() for event in events]


seconds = st.integers(1, 20).map(lambda number: number * SECOND)
maybe_seconds = st.none() | seconds


@st.composite
def streams(draw: st.DrawFn, *, most: int = 25, delay: tuple[int, int] = (-30, 20), keys: int = 2) -> list[Told]:
    """Events in order of arrival. delay: seconds from the time to the arrival; below 0 they are stamped ahead."""
    arrivals = sorted(draw(st.lists(st.integers(40, 110), max_size=most)))
    often = st.just(0) | st.integers(0, min(12, delay[1])) | st.integers(*delay)
    found = []
    for number, arrival in enumerate(arrivals):
        time = arrival - draw(often)
        type_, subject = draw(st.sampled_from(TYPES)), f"k{draw(st.integers(1, keys))}"
        found.append(Told(f"e{number}", type_, subject, time, arrival, draw(st.integers(0, 6))))
    return found


def reordered(events: Sequence[Told], delays: Sequence[int]) -> list[Told]:
    """The same events with other delays, in order of their new arrival."""
    moved = [
        Told(event.id, event.type, event.subject, event.time, event.time + delay, event.value)
        for event, delay in zip(events, delays, strict=True)
    ]
    return sorted(moved, key=lambda event: event.arrival)


def counts(per: f.Per) -> st.SearchStrategy[f.Trigger]:
    """`event`, plain or counted."""
    return st.builds(f.Count, _leaves(per), st.integers(1, 3), seconds)


def simple(per: f.Per) -> st.SearchStrategy[f.Trigger]:
    """Every form but the composites."""
    metric = st.builds(
        f.Metric,
        _leaves(per),
        st.just("data.v"),
        seconds,
        st.sampled_from(("avg", "min", "max", "sum", "count", "rate", "p50", "p95", "p99", "delta")),
        st.sampled_from((">", ">=", "<", "<=")),
        st.sampled_from((0.1, 1.0, 3.0)),
        st.just(0) | seconds,
    )
    values = st.just(f.UNSET) | st.integers(0, 6)
    changed = st.builds(f.Changed, _leaves(per), st.just("data.v"), values, values, st.just(0) | seconds)
    absent = st.builds(f.Absent, _leaves(per), seconds, st.none() | _leaves(per))
    return counts(per) | absent | metric | changed


def triggers(per: f.Per, *, within: st.SearchStrategy[int | None] = maybe_seconds) -> st.SearchStrategy[f.Trigger]:
    """Every form, nested."""
    every = seconds.map(lambda span: f.Schedule(lambda instant: (instant // span + 1) * span))
    leaves = simple(per) if per else simple(per) | every
    return st.recursive(leaves, lambda below: composites(below, within), max_leaves=5)


def stages(*, dedupe: bool = False) -> st.SearchStrategy[f.Stages]:
    """Debounce and throttle in every combination."""
    debounce = st.none() | st.builds(f.Debounce, seconds, maybe_seconds, st.sampled_from(("first", "last", "all")))
    limits = st.lists(st.builds(f.Limit, st.integers(1, 3), seconds), max_size=2).map(tuple)
    deduped = st.builds(f.Dedupe, st.just(("data.v",)), seconds) if dedupe else st.none()
    return st.builds(lambda d, b, n: f.Stages(dedupe=d, debounce=b, limits=n), deduped, debounce, limits)


pers = st.sampled_from([(), ("subject",)])


def rules(*, dedupe: bool = False, order: st.SearchStrategy[bool] | None = None) -> st.SearchStrategy[f.Rule]:
    """Rules with everything in them."""
    return pers.flatmap(
        lambda per: st.builds(
            lambda trigger, flow, ordered, accept, grace: rule(
                trigger, flow, order_event_time=ordered, accept_late=accept, grace=grace
            ),
            triggers(per),
            stages(dedupe=dedupe),
            st.booleans() if order is None else order,
            st.booleans(),
            st.just(0) | seconds,
        )
    )


def _leaves(per: f.Per) -> st.SearchStrategy[f.Leaf]:
    return st.sampled_from([leaf(type_, per) for type_ in TYPES])


def composites(
    below: st.SearchStrategy[f.Trigger], within: st.SearchStrategy[int | None]
) -> st.SearchStrategy[f.Trigger]:
    some = st.lists(below, min_size=1, max_size=3).map(tuple)
    sequence = st.builds(f.Sequence, some, within)
    gathered = st.builds(lambda of, n, span: f.AtLeast(min(n, len(of)), of, span), some, st.integers(1, 3), within)
    return sequence | gathered
