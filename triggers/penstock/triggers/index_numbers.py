"""The indexes of a field for numeric ranges."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Any, Final

from penstock.triggers import operators as op
from penstock.triggers.index_buckets import Bucket
from penstock.triggers.index_tables import Found, Table

_CHUNK = 256
GRIDS: Final = (4, 2, 1)  # binary exponents that share a grid: a coarse one first, finer ones where it is crowded
_NARROWEST, _WIDEST = -1_000, 1_000  # binary exponents of the widths of ranges that have cells
_LEAST: Final = -op.EXACT_INTEGER  # whole numbers from here to there need no closer look
_MOST: Final = op.EXACT_INTEGER


class Cells(Table):
    """Ranges with two ends, by the cells of a grid whose step is their width, rounded up.

    A range touches one or two cells, a value lies in one for each step there is; neither grows with the rules. A grid
    is a dictionary of its own, so that its keys are plain numbers.
    """

    __slots__ = ("_grids", "_steps")

    def __init__(self) -> None:
        super().__init__()
        self._grids: dict[int, dict[float, Bucket]] = {}
        self._steps: tuple[tuple[float, dict[float, Bucket]], ...] = ()  # (1 / step, its grid)

    def get(self, key: Any) -> Bucket | None:
        exponent, cell = key
        grid = self._grids.get(exponent)
        return None if grid is None else grid.get(cell)

    def put(self, key: Any, bucket: Bucket) -> None:
        exponent, cell = key
        grid = self._grids.get(exponent)
        if grid is not None:
            grid[cell] = bucket
            return
        self._grids[exponent] = {cell: bucket}
        self._renew()

    def drop(self, key: Any) -> None:
        exponent, cell = key
        del self._grids[exponent][cell]
        if not self._grids[exponent]:
            del self._grids[exponent]
            self._renew()

    def _renew(self) -> None:
        self._steps = tuple((math.ldexp(1.0, -exponent), grid) for exponent, grid in sorted(self._grids.items()))

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not float and (
            type(value) is not int or not (_LEAST <= value <= _MOST or op.comparable(value))
        ):
            return
        for inverse, grid in self._steps:
            bucket = grid.get(value * inverse // 1.0)
            if bucket is not None:
                found.append(bucket)


def cells_of(bounds: op.Range, coarse: int) -> list[Any] | None:
    """The cells a range touches, or None where it is too wide or too narrow for a grid.

    coarse: the steps are the powers of two of which the exponent is a multiple of it.
    """
    if len(bounds.form) == 2:
        return None
    bottom, top = float(bounds.form[1]), float(bounds.form[3])
    width = top - bottom
    exponent = -(-math.frexp(width)[1] // coarse) * coarse if width < math.inf else _WIDEST + 1
    if not _NARROWEST <= exponent <= _WIDEST:
        return None
    inverse = math.ldexp(1.0, -exponent)
    first, last = bottom * inverse // 1.0, top * inverse // 1.0
    if not (math.isfinite(first) and last - first <= 2):
        return None
    return [(exponent, first + step) for step in range(int(last - first) + 1)]


class Thresholds(Table):
    """Ranges with one end, in order: keys are (bound, closed).  `below`: the range lies below its bound."""

    __slots__ = ("_state", "below")

    def __init__(self, *, below: bool) -> None:
        super().__init__()
        self.below = below
        # the last key of each chunk, and the chunks: immutable, replaced as one
        self._state: tuple[tuple[Any, ...], tuple[tuple[tuple[Any, Bucket], ...], ...]] = ((), ())

    def put(self, key: Any, bucket: Bucket) -> None:
        self.buckets[key] = bucket
        tops, chunks = self._state
        at = min(bisect_left(tops, key), len(tops) - 1)
        rows = [row for row in (chunks[at] if chunks else ()) if row[0] != key]
        place = bisect_left(rows, key, key=lambda row: row[0])
        rows.insert(place, (key, bucket))
        self._replace(max(at, 0), rows)

    def drop(self, key: Any) -> None:
        del self.buckets[key]
        tops, chunks = self._state
        at = bisect_left(tops, key)
        self._replace(at, [row for row in chunks[at] if row[0] != key])

    def _replace(self, at: int, rows: list[tuple[Any, Bucket]]) -> None:
        tops, chunks = self._state
        half = len(rows) if len(rows) <= _CHUNK else len(rows) // 2
        parts = [tuple(part) for part in (rows[:half], rows[half:]) if part]
        self._state = (
            (*tops[:at], *(part[-1][0] for part in parts), *tops[at + 1 :]),
            (*chunks[:at], *parts, *chunks[at + 1 :]),
        )

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not float and (type(value) is not int or not op.comparable(value)):
            return
        if not -op.LARGEST <= value <= op.LARGEST:
            return
        tops, chunks = self._state
        # above: bound < value, or bound == value and closed (sorted as (bound, not closed)); below: the mirror image
        probe = (value, 0.5)
        at = bisect_left(tops, probe)
        if self.below:
            for chunk in chunks[at : at + 1]:
                start = bisect_right(chunk, probe, key=lambda row: row[0])
                found.extend(bucket for _, bucket in chunk[start:])
            for chunk in chunks[at + 1 :]:
                found.extend(bucket for _, bucket in chunk)
        else:
            for chunk in chunks[:at]:
                found.extend(bucket for _, bucket in chunk)
            for chunk in chunks[at : at + 1]:
                end = bisect_left(chunk, probe, key=lambda row: row[0])
                found.extend(bucket for _, bucket in chunk[:end])
