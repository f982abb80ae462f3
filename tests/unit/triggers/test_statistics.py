"""Statistics of a window: exact while they can be, and close where they cannot."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events.instants import SECOND
from penstock.triggers import sketch, statistics
from penstock.triggers.forms import Statistic
from penstock.triggers.node_states import Samples

HOUR = 3_600 * SECOND


def window(values: list[float], *, step: int = SECOND, over: int = HOUR) -> Samples:
    samples = statistics.NONE
    for number, value in enumerate(values):
        samples = statistics.put(samples, number * step, value)
        samples = statistics.moved(samples, number * step, over, percentiles=True)
    return samples


def wave(count: int) -> list[float]:
    return [100 + 99 * math.sin(number / 50) for number in range(count)]


@pytest.mark.parametrize("stat", ["count", "min", "max", "sum", "avg", "rate", "delta"])
def test_a_window_in_panes_tells_the_plain_statistics_exactly(stat: Statistic) -> None:
    values = wave(2_500)
    samples = window(values)
    assert samples.panes
    now = 2_499 * SECOND
    exact = Samples(tuple(n * SECOND for n in range(2_500)), tuple(values))
    expected = statistics.statistic(exact, now, HOUR, stat)
    assert statistics.statistic(samples, now, HOUR, stat) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [50, 95, 99])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_window_in_panes_tells_percentiles_to_one_per_cent(share: int, sign: int) -> None:
    values = [sign * value for value in wave(2_500)]
    expected = sorted(values)[statistics.rank_of(share, 2_500) - 1]
    stat: Statistic = "p50" if share == 50 else "p95" if share == 95 else "p99"
    found = statistics.statistic(window(values), 2_499 * SECOND, HOUR, stat)
    assert found == pytest.approx(expected, rel=0.01)


def test_a_thousand_samples_are_exact_and_one_more_goes_into_at_most_sixty_one_panes() -> None:
    assert not window(wave(1_000)).panes
    assert 1 <= len(window(wave(1_001)).panes) <= statistics.PANES + 1


def test_panes_leave_the_window_too() -> None:
    over = 2_000 * SECOND
    samples = window(wave(4_000), over=over)
    count = statistics.statistic(samples, 3_999 * SECOND, over, "count")
    assert count is not None
    assert 2_000 <= count <= 2_000 + over / statistics.PANES / SECOND
    assert statistics.moved(samples, 9_999 * SECOND, over, percentiles=True) == statistics.NONE


@given(st.floats(1e-300, 1e300) | st.floats(-1e300, -1e-300))
def test_every_number_lies_within_one_per_cent_of_the_middle_of_its_bin(value: float) -> None:
    middle = sketch.middle_of(sketch.bin_of(value))
    assert abs(middle - value) <= abs(value) * sketch.RELATIVE_ERROR * 1.000001


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_bins_are_in_the_order_of_the_numbers(one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert sketch.bin_of(low) <= sketch.bin_of(high)


def test_a_sketch_is_bounded_and_keeps_the_large_numbers_apart() -> None:
    bins: sketch.Bins = {}
    for exponent in range(600):
        bins = sketch.added(bins, 1.1**exponent)
    assert len(bins) == sketch.MAX_BINS
    assert sum(bins.values()) == 600
    assert sketch.quantile([bins], 594) == pytest.approx(1.1**593, rel=0.01)


def test_a_sketch_of_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no quantile"):
        sketch.quantile([{}], 1)


@pytest.mark.parametrize(
    ("share", "count", "rank"), [(50, 1, 1), (50, 4, 2), (95, 41, 39), (99, 100, 99), (99, 101, 100)]
)
def test_nearest_rank(share: int, count: int, rank: int) -> None:
    assert statistics.rank_of(share, count) == rank
