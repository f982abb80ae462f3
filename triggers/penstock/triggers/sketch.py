"""A sketch of many numbers that tells their quantiles to one per cent of the value.

Source: Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees,
PVLDB 12(12), 2019.  A bin holds the numbers of one magnitude; bins are counted in a plain mapping.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

RELATIVE_ERROR = 0.01
MAX_BINS = 200  # of one sketch; beyond it the smallest magnitudes share a bin

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_ZERO = 40_000  # keeps the bins of positive numbers above 0, those of negative ones below it

Bins: TypeAlias = dict[int, int]  # bin to how many; bins are in the order of the numbers


def bin_of(value: float) -> int:
    """The bin of a number; that of zero is 0."""
    if value == 0:
        return 0
    magnitude = math.ceil(math.log(abs(value)) / _LOG_GAMMA) + _ZERO
    return magnitude if value > 0 else -magnitude


def middle_of(bin_: int) -> float:
    """A number no more than one per cent from all of its bin."""
    if bin_ == 0:
        return 0.0
    try:
        value = 2 * math.exp((abs(bin_) - _ZERO) * _LOG_GAMMA) / (_GAMMA + 1)
    except OverflowError:
        value = math.inf
    return math.copysign(value, bin_)


def added(bins: Mapping[int, int], value: float) -> Bins:
    """The bins with one number more."""
    found = dict(bins)
    bin_ = bin_of(value)
    found[bin_] = found.get(bin_, 0) + 1
    if len(found) > MAX_BINS:
        first, second = sorted(found, key=abs)[:2]
        found[second] += found.pop(first)
    return found


def quantile(sketches: Iterable[Mapping[int, int]], rank: int) -> float:
    """About the rank-th smallest number (from 1) of several sketches together.  Raises ValueError if empty."""
    merged: Bins = {}
    for bins in sketches:
        for bin_, count in bins.items():
            merged[bin_] = merged.get(bin_, 0) + count
    for bin_ in sorted(merged):
        rank -= merged[bin_]
        if rank <= 0:
            return middle_of(bin_)
    raise ValueError("no numbers, so no quantile")
