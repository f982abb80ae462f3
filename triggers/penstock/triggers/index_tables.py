"""The indexes of one field: from the event's value to the buckets whose predicate holds, or may hold, for it.

Each one knows `find(value)`, the buckets of a value; and `table(predicate)`/key functions by which a bucket is put in
and taken out. `precise` ones need no check afterwards.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from penstock.triggers import operators as op
from penstock.triggers.addresses import packed, truncated
from penstock.triggers.index_buckets import Bucket

_CHUNK = 256
_GRAM = 5  # characters of a literal by which wildcards are told apart
_NARROWEST, _WIDEST = -1_000, 1_000  # binary exponents of the widths of ranges that have cells


class Table:
    """Buckets under keys that a predicate gives; the base of all indexes of a field."""

    __slots__ = ("buckets",)
    precise: ClassVar[bool] = True

    def __init__(self) -> None:
        self.buckets: dict[Any, Bucket] = {}

    def get(self, key: Any) -> Bucket | None:
        return self.buckets.get(key)

    def put(self, key: Any, bucket: Bucket) -> None:
        self.buckets[key] = bucket

    def drop(self, key: Any) -> None:
        del self.buckets[key]

    def find(self, value: object) -> Iterable[Bucket]:
        bucket = self.buckets.get(value)
        return () if bucket is None else (bucket,)

    def size(self) -> int:
        return len(self.buckets)


class Values(Table):
    """By equal value."""

    __slots__ = ()


class _Sized(Table):
    """By keys of which the length matters; remembers which lengths there are."""

    __slots__ = ("_counts", "lengths")

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[int, int] = {}
        self.lengths: tuple[int, ...] = ()

    def put(self, key: Any, bucket: Bucket) -> None:
        if key not in self.buckets:
            self._count(len(key), 1)
        self.buckets[key] = bucket

    def drop(self, key: Any) -> None:
        del self.buckets[key]
        self._count(len(key), -1)

    def _count(self, length: int, by: int) -> None:
        count = self._counts.get(length, 0) + by
        if count:
            self._counts[length] = count
        else:
            del self._counts[length]
        if count == 0 or (count == 1 and by == 1):
            self.lengths = tuple(sorted(self._counts))


class Prefixes(_Sized):
    """By the beginning of a text: one look-up for each length of prefix there is."""

    __slots__ = ()

    def find(self, value: object) -> Iterable[Bucket]:
        if type(value) is not str:
            return ()
        found: list[Bucket] = []
        get, size = self.buckets.get, len(value)
        for length in self.lengths:
            if length > size:
                break
            bucket = get(value[:length])
            if bucket is not None:
                found.append(bucket)
        return found


class Suffixes(_Sized):
    """By the end of a text."""

    __slots__ = ()

    def find(self, value: object) -> Iterable[Bucket]:
        if type(value) is not str:
            return ()
        found: list[Bucket] = []
        get, size = self.buckets.get, len(value)
        for length in self.lengths:
            if length > size:
                break
            bucket = get(value[size - length :])
            if bucket is not None:
                found.append(bucket)
        return found


class CaselessPrefixes(_Sized):
    """By the beginning of a text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: object) -> Iterator[Bucket]:
        if type(value) is str:
            for length in self.lengths:
                part = value[:length]
                bucket = self.buckets.get(part.lower()) if len(part) == length and part.isascii() else None
                if bucket is not None:
                    yield bucket


class CaselessSuffixes(_Sized):
    """By the end of a text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: object) -> Iterator[Bucket]:
        if type(value) is str:
            for length in self.lengths:
                part = value[len(value) - length :] if length <= len(value) else ""
                bucket = self.buckets.get(part.lower()) if len(part) == length and part.isascii() else None
                if bucket is not None:
                    yield bucket


class Caseless(Table):
    """By equal text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: object) -> Iterable[Bucket]:
        bucket = self.buckets.get(value.lower()) if type(value) is str and value.isascii() else None
        return () if bucket is None else (bucket,)


class Grams(_Sized):
    """By a piece of text anywhere inside; wildcards are kept under the rarest piece of their literals."""

    __slots__ = ()
    precise = False

    def find(self, value: object) -> Iterable[Bucket]:
        if type(value) is not str:
            return ()
        buckets = self.buckets
        found: list[Bucket] = []
        for length in self.lengths:
            pieces = {value[at : at + length] for at in range(len(value) - length + 1)}
            if pieces and not buckets.keys().isdisjoint(pieces):
                found += [bucket for piece in pieces if (bucket := buckets.get(piece)) is not None]
        return found


def pieces_of(wildcard: op.Wildcard) -> list[str]:
    """The pieces of its literals by which a wildcard may be kept, all of one length."""
    length = min(_GRAM, max(map(len, wildcard.parts)))
    return [part[at : at + length] for part in wildcard.parts for at in range(len(part) - length + 1)]


class Addresses(Table):
    """By address, however it is spelled."""

    __slots__ = ()

    def find(self, value: object) -> Iterable[Bucket]:
        bucket = self.buckets.get(packed(value)) if type(value) is str else None
        return () if bucket is None else (bucket,)


class Blocks(Table):
    """By network: keys are (first address, number of leading bits)."""

    __slots__ = ("_masks",)

    def __init__(self) -> None:
        super().__init__()
        self._masks: tuple[tuple[int, int], ...] = ()  # (bytes of the address, bits) in use

    def put(self, key: Any, bucket: Bucket) -> None:
        first, bits = key
        if (len(first), bits) not in self._masks:
            self._masks = (*self._masks, (len(first), bits))
        self.buckets[key] = bucket

    def find(self, value: object) -> Iterator[Bucket]:
        address = packed(value) if type(value) is str else None
        if address is not None:
            for size, bits in self._masks:
                first = (
                    truncated(address, bits)
                    if size == len(address)
                    else b"\0\0\0\0"
                    if (size, bits) == (4, 0)
                    else None
                )
                bucket = self.buckets.get((first, bits))
                if bucket is not None and first is not None:
                    yield bucket


class Cells(Table):
    """Ranges with two ends, by the cells of a grid whose step is their width, rounded up to a power of two.

    A range touches two or three cells, a value lies in one for each width there is; neither grows with the rules.
    """

    __slots__ = ("_counts", "_steps")
    precise = False

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[int, int] = {}
        self._steps: tuple[tuple[int, float], ...] = ()  # (exponent, 1 / step) in use

    def put(self, key: Any, bucket: Bucket) -> None:
        if key not in self.buckets:
            self._count(key[0], 1)
        self.buckets[key] = bucket

    def drop(self, key: Any) -> None:
        del self.buckets[key]
        self._count(key[0], -1)

    def _count(self, exponent: int, by: int) -> None:
        count = self._counts.get(exponent, 0) + by
        if count:
            self._counts[exponent] = count
        else:
            del self._counts[exponent]
        if count == 0 or (count == 1 and by == 1):
            self._steps = tuple((used, math.ldexp(1.0, -used)) for used in sorted(self._counts))

    def find(self, value: object) -> Iterable[Bucket]:
        if type(value) is not float and (type(value) is not int or not op.comparable(value)):
            return ()
        found: list[Bucket] = []
        for exponent, inverse in self._steps:
            bucket = self.buckets.get((exponent, value * inverse // 1.0))
            if bucket is not None:
                found.append(bucket)
        return found


def cells_of(bounds: op.Range) -> list[Any] | None:
    """The cells a range touches, or None where it is too wide or too narrow for a grid."""
    width = bounds.top - bounds.bottom
    exponent = math.frexp(width)[1] if math.isfinite(width) else _WIDEST + 1
    if not _NARROWEST <= exponent <= _WIDEST:
        return None
    inverse = math.ldexp(1.0, -exponent)
    first, last = bounds.bottom * inverse // 1.0, bounds.top * inverse // 1.0
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

    def find(self, value: object) -> Iterator[Bucket]:
        if type(value) is not float and (type(value) is not int or not op.comparable(value)):
            return
        if not -op.LARGEST <= value <= op.LARGEST:
            return
        tops, chunks = self._state
        # above: bound < value, or bound == value and closed (sorted as (bound, not closed)); below: the mirror image
        probe = (value, 0.5)
        if self.below:
            at = bisect_left(tops, probe)
            for chunk in chunks[at : at + 1]:
                start = bisect_right(chunk, probe, key=lambda row: row[0])
                yield from (bucket for _, bucket in chunk[start:])
            for chunk in chunks[at + 1 :]:
                yield from (bucket for _, bucket in chunk)
        else:
            at = bisect_left(tops, probe)
            for chunk in chunks[:at]:
                yield from (bucket for _, bucket in chunk)
            for chunk in chunks[at : at + 1]:
                end = bisect_left(chunk, probe, key=lambda row: row[0])
                yield from (bucket for _, bucket in chunk[:end])


class Presence(Table):
    """One bucket for every leaf there is."""

    __slots__ = ()

    def find(self, value: object) -> Iterable[Bucket]:
        return (*self.buckets.values(),)
