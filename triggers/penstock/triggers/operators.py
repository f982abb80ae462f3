"""The operators of the pattern language: what each one says of one JSON scalar.

A scalar is a `str`, `int`, `float`, `bool` or None. `Predicate.test` never raises and takes time linear in the scalar.
Predicates are structs that hold no containers in a cycle, and so need not be walked by the garbage collector: of a
hundred thousand rules that saves more than half of the time to load them.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias

import msgspec

from penstock.triggers.addresses import packed, truncated

Scalar: TypeAlias = str | int | float | bool | None
LARGEST = sys.float_info.max
EXACT_INTEGER = 1 << 53  # every whole number up to here is a double


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
    if -EXACT_INTEGER <= number <= EXACT_INTEGER:
        return True
    try:
        return Decimal(repr(float(number))) == number
    except OverflowError:
        return False


ABSENT = msgspec.UNSET  # stands for the leaf that is not there


class Predicate(msgspec.Struct, gc=False, eq=False):
    """One alternative of a field."""

    operator: ClassVar[str]

    def test(self, value: object) -> bool:
        """Whether a scalar, or its token, satisfies it; nothing that is ABSENT does."""
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


class Address(Predicate, gc=False, eq=False):
    """An exact value that is an IP literal: equal addresses match, however they are spelled."""

    text: str
    address: bytes
    operator: ClassVar[str] = "exact"

    def test(self, value: object) -> bool:
        return type(value) is str and packed(value) == self.address

    @property
    def expected(self) -> object:
        return self.text


class BigInteger(Predicate, gc=False, eq=False):
    """An exact whole number that is no double: it matches its own digits only."""

    number: int
    operator: ClassVar[str] = "exact"

    def test(self, value: object) -> bool:
        return type(value) is int and value == self.number

    @property
    def expected(self) -> object:
        return self.number


class Prefix(Predicate, gc=False, eq=False):
    """Strings that begin so."""

    text: str
    operator: ClassVar[str] = "prefix"

    def test(self, value: object) -> bool:
        return type(value) is str and value.startswith(self.text)

    @property
    def expected(self) -> object:
        return {"prefix": self.text}


class Suffix(Predicate, gc=False, eq=False):
    """Strings that end so."""

    text: str
    operator: ClassVar[str] = "suffix"

    def test(self, value: object) -> bool:
        return type(value) is str and value.endswith(self.text)

    @property
    def expected(self) -> object:
        return {"suffix": self.text}


class IgnoreCase(Predicate, gc=False, eq=False):
    """Strings equal but for case; `where` says whether the whole counts, the beginning or the end.

    Character by character, the lower or the upper form of the pattern's character, as Unicode maps it.
    """

    text: str
    where: str
    lowered: str | None  # None: not all of it is ASCII
    find: Callable[[str], object] | None  # for those
    operator: ClassVar[str] = "equals-ignore-case"

    @classmethod
    def of(cls, text: str, where: str = "whole") -> IgnoreCase:
        """The predicate of a text."""
        if text.isascii():
            return cls(text, where, sys.intern(text.lower()), None)
        return cls(text, where, None, re.compile(_case_regex(text, where), re.DOTALL).search)

    def test(self, value: object) -> bool:
        if type(value) is not str:
            return False
        if self.find is not None:
            return self.find(value) is not None
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


class Wildcard(Predicate, gc=False, eq=False):
    r"""Whole strings with `*` for any run of characters; `\*` and `\\` are the characters themselves.

    parts: the literal texts between the stars; one part means no star.  Matching never backtracks.
    """

    text: str
    parts: tuple[str, ...]
    operator: ClassVar[str] = "wildcard"

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


class Range(Predicate, gc=False, eq=False):
    """JSON numbers inside bounds.

    form: as in the pattern, `("=", n)`, one bound such as `(">", n)`, or two, the lower one first.
    span: the least and the greatest double inside, as the two parts of a complex number, which keeps both in one
    object without pointers. An open end is the largest double there is, so that infinity and NaN, which no JSON has,
    are in no range.
    """

    form: tuple[Any, ...]
    span: complex
    operator: ClassVar[str] = "numeric"

    @classmethod
    def of(cls, form: tuple[Any, ...]) -> Range:
        """The range of a form."""
        sign, number = form[0], form[1]
        if sign == "=":
            return cls(form, complex(number, number))
        if sign in ("<", "<="):
            return cls(form, complex(-LARGEST, number if sign == "<=" else _below(number)))
        low = number if sign == ">=" else _above(number)
        if len(form) == 2:
            return cls(form, complex(low, LARGEST))
        return cls(form, complex(low, form[3] if form[2] == "<=" else _below(form[3])))

    def test(self, value: object) -> bool:
        if type(value) is float or (type(value) is int and comparable(value)):
            bottom, top, (with_bottom, with_top) = self.bottom, self.top, self.closed
            above = value >= bottom if with_bottom else value > bottom
            return above and (value <= top if with_top else value < top)
        return False

    @property
    def spanned(self) -> bool:
        """Whether a comparison with `span` is enough: no whole number beyond 2^53 lies next to a bound."""
        form = self.form
        return bool(abs(form[1]) < EXACT_INTEGER // 2 and abs(form[-1]) < EXACT_INTEGER // 2)

    @property
    def bottom(self) -> float:
        """The lower bound."""
        number: float = self.form[1]
        return -LARGEST if self.form[0] in ("<", "<=") else number

    @property
    def top(self) -> float:
        """The upper bound."""
        number: float = self.form[-1]
        return LARGEST if len(self.form) == 2 and self.form[0] in (">", ">=") else number

    @property
    def closed(self) -> tuple[bool, bool]:
        """Of each end, whether it belongs to the range; that of an open end does."""
        return self.form[0] != ">", self.form[-2] != "<"

    @property
    def expected(self) -> object:
        return {"numeric": list(self.form)}


def _above(number: float) -> float:
    """The least double above a number, which may be a whole number between two doubles."""
    nearest = float(number)
    return nearest if nearest > number else math.nextafter(nearest, math.inf)


def _below(number: float) -> float:
    """The greatest double below a number."""
    nearest = float(number)
    return nearest if nearest < number else math.nextafter(nearest, -math.inf)


class Present(Predicate, gc=False, eq=False):
    """Any leaf, null included."""

    operator: ClassVar[str] = "exists"

    def test(self, value: object) -> bool:
        return value is not ABSENT

    @property
    def expected(self) -> object:
        return {"exists": True}


class Block(Predicate, gc=False, eq=False):
    """Strings that are addresses inside a CIDR block.  An IPv4 block of mask 0 takes IPv6 addresses too."""

    text: str
    first: bytes
    bits: int
    operator: ClassVar[str] = "cidr"

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


class AnythingBut(Predicate, gc=False, eq=False):
    """A leaf that equals none of the values, all strings or all numbers; leaves of another kind always match."""

    values: tuple[object, ...] | frozenset[object]  # those that are not wanted, and ABSENT
    form: object
    operator: ClassVar[str] = "anything-but"

    @classmethod
    def of(cls, values: tuple[object, ...], form: object) -> AnythingBut:
        """The predicate of some values; `form` is what the pattern says."""
        return cls((*values, ABSENT) if len(values) < 9 else frozenset((*values, ABSENT)), form)

    def test(self, value: object) -> bool:
        if value is True or value is False:  # which Python holds equal to 1 and 0
            return True
        return value not in self.values

    @property
    def expected(self) -> object:
        return {"anything-but": self.form}


class NoneOf(Predicate, gc=False, eq=False):
    """A leaf for which none of the inner predicates (prefix, suffix, wildcard, ignore-case) holds."""

    name: str
    inner: tuple[Predicate, ...]
    form: object
    operator: ClassVar[str] = "anything-but"

    def test(self, value: object) -> bool:
        return value is not ABSENT and not any(predicate.test(value) for predicate in self.inner)

    @property
    def expected(self) -> object:
        return {"anything-but": {self.name: self.form}}
