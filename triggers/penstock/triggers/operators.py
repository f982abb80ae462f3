"""The operators of the pattern language: what each one says of one JSON scalar.

A scalar is a `str`, `int`, `float`, `bool` or None. `Predicate.test` never raises and takes time linear in the scalar.
"""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from typing import ClassVar, TypeAlias

from penstock.triggers.addresses import packed, truncated

Scalar: TypeAlias = str | int | float | bool | None
LARGEST = sys.float_info.max
_EXACT_INTEGER = 1 << 53  # every whole number up to here is a double


class Token:
    """Stands for `true` or `false` among hashed values, since Python holds True equal to 1 and 1.0."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


TRUE, FALSE = Token("true"), Token("false")


def token(value: object) -> object:
    """The value as it is hashed and compared by the index."""
    return TRUE if value is True else FALSE if value is False else value


def comparable(number: int) -> bool:
    """Whether a whole number survives the way through a double's shortest spelling; others compare as text."""
    if -_EXACT_INTEGER <= number <= _EXACT_INTEGER:
        return True
    try:
        return Decimal(repr(float(number))) == number
    except OverflowError:
        return False


class Predicate:
    """One alternative of a field."""

    __slots__ = ()
    operator: ClassVar[str]

    def test(self, value: object) -> bool:
        """Whether a present scalar satisfies it."""
        raise AssertionError(f"{type(self).__name__} has no test")

    @property
    def expected(self) -> object:
        """What it asks for, in the form of the pattern language."""
        raise AssertionError(f"{type(self).__name__} has no form")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self.expected) == repr(other.expected)

    def __hash__(self) -> int:
        return hash((self.operator, repr(self.expected)))

    def __repr__(self) -> str:
        return f"{self.operator}({self.expected!r})"


class Address(Predicate):
    """An exact value that is an IP literal: equal addresses match, however they are spelled."""

    __slots__ = ("address", "text")
    operator = "exact"

    def __init__(self, text: str, address: bytes) -> None:
        self.text, self.address = text, address

    def test(self, value: object) -> bool:
        return type(value) is str and packed(value) == self.address

    @property
    def expected(self) -> object:
        return self.text


class BigInteger(Predicate):
    """An exact whole number that is no double: it matches its own digits only."""

    __slots__ = ("number",)
    operator = "exact"

    def __init__(self, number: int) -> None:
        self.number = number

    def test(self, value: object) -> bool:
        return type(value) is int and value == self.number

    @property
    def expected(self) -> object:
        return self.number


class Prefix(Predicate):
    """Strings that begin so."""

    __slots__ = ("text",)
    operator = "prefix"

    def __init__(self, text: str) -> None:
        self.text = text

    def test(self, value: object) -> bool:
        return type(value) is str and value.startswith(self.text)

    @property
    def expected(self) -> object:
        return {"prefix": self.text}


class Suffix(Predicate):
    """Strings that end so."""

    __slots__ = ("text",)
    operator = "suffix"

    def __init__(self, text: str) -> None:
        self.text = text

    def test(self, value: object) -> bool:
        return type(value) is str and value.endswith(self.text)

    @property
    def expected(self) -> object:
        return {"suffix": self.text}


class IgnoreCase(Predicate):
    """Strings equal but for case; `where` says whether the whole counts, the beginning or the end.

    Character by character, the lower or the upper form of the pattern's character, as Unicode maps it.
    """

    __slots__ = ("_find", "lowered", "text", "where")
    operator = "equals-ignore-case"

    def __init__(self, text: str, where: str = "whole") -> None:
        self.text, self.where = text, where
        self.lowered = text.lower() if text.isascii() else None
        self._find = None if self.lowered is not None else re.compile(_case_regex(text, where), re.DOTALL).search

    def test(self, value: object) -> bool:
        if type(value) is not str:
            return False
        if self._find is not None:
            return self._find(value) is not None
        size = len(self.text)
        part = (
            value if self.where == "whole" else value[:size] if self.where == "prefix" else value[len(value) - size :]
        )
        return len(value) >= size and part.isascii() and part.lower() == self.lowered

    @property
    def expected(self) -> object:
        bare = {"equals-ignore-case": self.text}
        return bare if self.where == "whole" else {self.where: bare}


def _case_regex(text: str, where: str) -> str:
    forms = ((char, char) if ord(char) > 0xFFFF else (char.lower(), char.upper()) for char in text)
    body = "".join(f"(?:{re.escape(low)}|{re.escape(high)})" for low, high in forms)
    return f"{body}\\Z" if where == "suffix" else f"\\A{body}" if where == "prefix" else f"\\A{body}\\Z"


class Wildcard(Predicate):
    r"""Whole strings with `*` for any run of characters; `\*` and `\\` are the characters themselves.

    parts: the literal texts between the stars; one part means no star.  Matching never backtracks.
    """

    __slots__ = ("parts", "text")
    operator = "wildcard"

    def __init__(self, text: str, parts: tuple[str, ...]) -> None:
        self.text, self.parts = text, parts

    def test(self, value: object) -> bool:
        if type(value) is not str:
            return False
        parts = self.parts
        if len(parts) == 1:
            return value == parts[0]
        first, last = parts[0], parts[-1]
        end = len(value) - len(last)
        if end < len(first) or not value.startswith(first) or not value.endswith(last):
            return False
        at = len(first)
        for part in parts[1:-1]:  # the leftmost place of each part leaves most room for the next
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    @property
    def expected(self) -> object:
        return {"wildcard": self.text}


class Range(Predicate):
    """JSON numbers inside bounds.  `closed` says of each end whether it belongs to the range.

    An open end is the largest double there is, so that infinity and NaN, which no JSON has, are in no range.
    """

    __slots__ = ("bottom", "closed", "form", "top")
    operator = "numeric"

    def __init__(
        self, bottom: float | None, top: float | None, closed: tuple[bool, bool], form: tuple[object, ...]
    ) -> None:
        self.bottom = -LARGEST if bottom is None else bottom
        self.top = LARGEST if top is None else top
        self.closed = closed[0] or bottom is None, closed[1] or top is None
        self.form = form

    def test(self, value: object) -> bool:
        if type(value) is float or (type(value) is int and comparable(value)):
            bottom, top = self.bottom, self.top
            return bottom < value < top or (value == bottom and self.closed[0]) or (value == top and self.closed[1])
        return False

    @property
    def expected(self) -> object:
        return {"numeric": list(self.form)}


class Present(Predicate):
    """Any leaf, null included."""

    __slots__ = ()
    operator = "exists"

    def test(self, value: object) -> bool:
        return True

    @property
    def expected(self) -> object:
        return {"exists": True}


class Block(Predicate):
    """Strings that are addresses inside a CIDR block.  An IPv4 block of mask 0 takes IPv6 addresses too."""

    __slots__ = ("bits", "first", "text")
    operator = "cidr"

    def __init__(self, text: str, first: bytes, bits: int) -> None:
        self.text, self.first, self.bits = text, first, bits

    def test(self, value: object) -> bool:
        address = packed(value) if type(value) is str else None
        if address is None:
            return False
        if len(address) != len(self.first):
            return self.bits == 0 and len(self.first) == 4
        return truncated(address, self.bits) == self.first

    @property
    def expected(self) -> object:
        return {"cidr": self.text}


class AnythingBut(Predicate):
    """A leaf that equals none of the values, all strings or all numbers; leaves of another kind always match."""

    __slots__ = ("form", "values")
    operator = "anything-but"

    def __init__(self, values: tuple[object, ...], form: object) -> None:
        self.values: tuple[object, ...] | frozenset[object] = values if len(values) < 9 else frozenset(values)
        self.form = form

    def test(self, value: object) -> bool:
        return token(value) not in self.values

    @property
    def expected(self) -> object:
        return {"anything-but": self.form}


class NoneOf(Predicate):
    """A leaf for which none of the inner predicates (prefix, suffix, wildcard, ignore-case) holds."""

    __slots__ = ("form", "inner", "name")
    operator = "anything-but"

    def __init__(self, name: str, inner: tuple[Predicate, ...], form: object) -> None:
        self.name, self.inner, self.form = name, inner, form

    def test(self, value: object) -> bool:
        return not any(predicate.test(value) for predicate in self.inner)

    @property
    def expected(self) -> object:
        return {"anything-but": {self.name: self.form}}
