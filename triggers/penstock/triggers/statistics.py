"""Statistics of a metric's window: exact over its samples, or out of panes where there are too many of them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

from penstock.events.instants import SECOND, Instant
from penstock.triggers import sketch
from penstock.triggers.forms import Operator, Statistic
from penstock.triggers.node_states import Pane, Samples

EXACT = 1_000  # samples kept one by one; beyond it the window is kept in panes
PANES = 60


NONE = Samples()


def put(samples: Samples, time: Instant, value: float) -> Samples:
    """With one sample more, in its place."""
    place = bisect_right(samples.times, time)
    times = (*samples.times[:place], time, *samples.times[place:])
    return Samples(times, (*samples.values[:place], value, *samples.values[place:]), samples.panes)


def moved(samples: Samples, now: Instant, over: int, *, percentiles: bool) -> Samples:
    """Without what has left (now − over, now], and folded into panes where it is too much."""
    gone = bisect_right(samples.times, now - over)
    panes = tuple(pane for pane in samples.panes if pane.last[0] > now - over)
    found = samples
    if gone or len(panes) < len(samples.panes):
        found = Samples(samples.times[gone:], samples.values[gone:], panes)
    if not found.panes and len(found.times) <= EXACT:
        return found
    inside = bisect_right(found.times, now)
    kept = {pane.index: pane for pane in found.panes}
    for time, value in zip(found.times[:inside], found.values[:inside], strict=True):
        index = time // _width(over)
        kept[index] = _with(kept.get(index), index, time, value, percentiles=percentiles)
    panes = tuple(kept[index] for index in sorted(kept))
    return Samples(found.times[inside:], found.values[inside:], panes)


def leaves_at(samples: Samples, over: int) -> Instant | None:
    """When the next sample, or pane, leaves the window."""
    first = min((pane.last[0] for pane in samples.panes), default=None)
    if first is None:
        first = samples.times[0] if samples.times else None
    return None if first is None else first + over


def statistic(samples: Samples, now: Instant, over: int, stat: Statistic) -> float | None:
    """Of the samples in (now − over, now]; None where they have none.  samples: as `moved` leaves them."""
    inside = bisect_right(samples.times, now)
    if samples.panes:
        return _of_panes(samples.panes, over, stat)
    values = samples.values[:inside]
    if stat == "count":
        return inside
    if stat == "rate":
        return inside * SECOND / over
    if stat == "sum":
        return _sum(values)
    return _EXACT[stat](values) if values else None


def compares(value: float, op: Operator, bound: float) -> bool:
    """Whether `value op bound`."""
    if op == ">":
        return value > bound
    if op == ">=":
        return value >= bound
    return value < bound if op == "<" else value <= bound


def rank_of(share: int, count: int) -> int:
    """The nearest rank (from 1) of a percentile."""
    return max(1, -(-share * count // 100))


def _width(over: int) -> int:
    return max(1, over // PANES)


def _with(pane: Pane | None, index: int, time: Instant, value: float, *, percentiles: bool) -> Pane:
    bins = sketch.added(pane.bins if pane else {}, value) if percentiles else {}
    if pane is None:
        return Pane(index, 1, value, value, value, (time, value), (time, value), bins)
    return Pane(
        index,
        pane.count + 1,
        pane.total + value,
        min(pane.low, value),
        max(pane.high, value),
        (time, value) if time < pane.first[0] else pane.first,
        (time, value) if time >= pane.last[0] else pane.last,
        bins,
    )


def _of_panes(panes: tuple[Pane, ...], over: int, stat: Statistic) -> float:
    count = sum(pane.count for pane in panes)
    if stat in ("count", "rate"):
        return count if stat == "count" else count * SECOND / over
    if stat in ("sum", "avg"):
        total = _sum(tuple(pane.total for pane in panes))
        return total if stat == "sum" else total / count
    if stat == "min":
        return min(pane.low for pane in panes)
    if stat == "max":
        return max(pane.high for pane in panes)
    if stat == "delta":
        return panes[-1].last[1] - panes[0].first[1]
    return sketch.quantile((pane.bins for pane in panes), rank_of(int(stat[1:]), count))


def _sum(values: tuple[float, ...]) -> float:
    """Correctly rounded, so that the order of delivery does not show."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond the range of doubles, or infinities of both signs
        return sum(values)


def _percentile(share: int) -> Callable[[tuple[float, ...]], float]:
    return lambda values: sorted(values)[rank_of(share, len(values)) - 1]


_EXACT: dict[str, Callable[[tuple[float, ...]], float]] = {
    "avg": lambda values: _sum(values) / len(values),
    "min": min,
    "max": max,
    "delta": lambda values: values[-1] - values[0],
    "p50": _percentile(50),
    "p95": _percentile(95),
    "p99": _percentile(99),
}
