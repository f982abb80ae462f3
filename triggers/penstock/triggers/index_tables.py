"""The indexes of one field: from the event's value to the buckets whose predicate holds, or may hold, for it.

Each one keeps buckets under keys that a predicate gives, and knows `find(value, found)`, which puts the buckets of a
token that is not ABSENT behind those found already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from penstock.triggers import operators as op
from penstock.triggers.addresses import packed, truncated
from penstock.triggers.index_buckets import Bucket

_GRAM = 5  # characters of a literal by which wildcards are told apart
_WORD = 8  # characters behind a delimiter by which they are told apart
_SHORTEST = 3  # of those, and of a beginning or an end that tells apart well enough
DELIMITERS: Final = "/.:_-@# "

Found = list[Bucket]


def _with_hashes() -> dict[Any, Bucket]:
    """An empty dictionary that keeps the hashes of its keys beside them.

    CPython's dictionaries do not as long as all keys are texts: to find that a text is not there, which is what most
    look-ups find, they fetch other texts from memory. In a large dictionary that takes twice as long.
    """
    found: dict[Any, Any] = {0: None}
    del found[0]
    return found


class Table:
    """Buckets by equal key; the base of all indexes of a field.

    rules: how many lie here; one under several keys counts several times.
    """

    __slots__ = ("buckets", "rules")

    def __init__(self) -> None:
        self.buckets: dict[Any, Bucket] = _with_hashes()
        self.rules = 0

    def get(self, key: Any) -> Bucket | None:
        return self.buckets.get(key)

    def put(self, key: Any, bucket: Bucket) -> None:
        self.buckets[key] = bucket

    def drop(self, key: Any) -> None:
        del self.buckets[key]

    def find(self, value: Any, found: Found) -> None:
        bucket = self.buckets.get(value)
        if bucket is not None:
            found.append(bucket)


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

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        get, size = self.buckets.get, len(value)
        for length in self.lengths:
            if length > size:
                break
            bucket = get(value[:length])
            if bucket is not None:
                found.append(bucket)


class Suffixes(_Sized):
    """By the end of a text."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        get, size = self.buckets.get, len(value)
        for length in self.lengths:
            if length > size:
                break
            bucket = get(value[size - length :])
            if bucket is not None:
                found.append(bucket)


class CaselessPrefixes(_Sized):
    """By the beginning of a text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        for length in self.lengths:
            part = value[:length]
            bucket = self.buckets.get(part.lower()) if len(part) == length and part.isascii() else None
            if bucket is not None:
                found.append(bucket)


class CaselessSuffixes(_Sized):
    """By the end of a text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        for length in self.lengths:
            part = value[len(value) - length :] if length <= len(value) else ""
            bucket = self.buckets.get(part.lower()) if len(part) == length and part.isascii() else None
            if bucket is not None:
                found.append(bucket)


class Caseless(Table):
    """By equal text, ASCII, in lower case."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        bucket = self.buckets.get(value.lower()) if type(value) is str and value.isascii() else None
        if bucket is not None:
            found.append(bucket)


class Words(_Sized):
    """By what stands behind a delimiter, wherever that occurs: wildcards on paths, subjects and dotted names."""

    __slots__ = ("delimiter",)

    def __init__(self, delimiter: str) -> None:
        super().__init__()
        self.delimiter = delimiter

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        get = self.buckets.get
        words = value.split(self.delimiter)
        del words[0]
        for length in self.lengths:
            for word in words if len(words) < 2 else {word[:length] for word in words}:  # each bucket once
                bucket = get(word[:length])
                if bucket is not None:
                    found.append(bucket)


class Grams(_Sized):
    """By a piece of text anywhere inside, for wildcards that have nothing better."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        if type(value) is not str:
            return
        buckets = self.buckets
        for length in self.lengths:
            pieces = {value[at : at + length] for at in range(len(value) - length + 1)}
            if pieces and not buckets.keys().isdisjoint(pieces):
                found += [bucket for piece in pieces if (bucket := buckets.get(piece)) is not None]


def pieces_of(wildcard: op.Wildcard) -> Iterator[tuple[str, str]]:
    """The tables and keys under any one of which a wildcard with two literals or more may be kept, the best first."""
    parts = wildcard.parts
    ends = [("prefix", parts[0]), ("suffix", parts[-1])]
    if len(parts[-1]) > len(parts[0]):
        ends.reverse()
    yield from (end for end in ends if len(end[1]) >= _SHORTEST)
    yield from _words_of(parts)
    length = min(_GRAM, max(map(len, parts)))
    if length:
        grams = [part[at : at + length] for part in parts for at in range(len(part) - length + 1)]
        yield from (("gram", piece) for piece in grams[:16])
    yield from (end for end in ends if 0 < len(end[1]) < _SHORTEST)


def _words_of(parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """What stands behind a delimiter in the literals of a wildcard, a few of the longest."""
    found = [
        (f"word{delimiter}", word[:_WORD])
        for delimiter in DELIMITERS
        for part in parts
        if delimiter in part
        for word in part.split(delimiter)[1:]
        if len(word) >= _SHORTEST
    ]
    return sorted(found, key=lambda word: -len(word[1]))[:4] if len(found) > 1 else found


class Addresses(Table):
    """By address, however it is spelled."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        bucket = self.buckets.get(packed(value)) if type(value) is str else None
        if bucket is not None:
            found.append(bucket)


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

    def find(self, value: Any, found: Found) -> None:
        address = packed(value) if type(value) is str else None
        if address is None:
            return
        for size, bits in self._masks:
            same = size == len(address)
            first = truncated(address, bits) if same else b"\0\0\0\0" if (size, bits) == (4, 0) else None
            bucket = self.buckets.get((first, bits))
            if bucket is not None and first is not None:
                found.append(bucket)


class Presence(Table):
    """One bucket for every leaf there is."""

    __slots__ = ()

    def find(self, value: Any, found: Found) -> None:
        found.extend((*self.buckets.values(),))
