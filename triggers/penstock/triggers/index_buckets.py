"""Where the index keeps the rules that are left once some of their fields are known to hold.

A bucket is one rule, a few rules checked one after the other, or a `Node` that tells many rules apart by another field.
`values` holds, by slot, the token of the event's leaf at each named path, or ABSENT. Readers take no lock: what they
read is either immutable and replaced as a whole, or a dictionary of which they ask one key or take one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from penstock.triggers.fields import Branch, Field
from penstock.triggers.operators import AnythingBut, NoneOf, Present, Range, comparable, token

ABSENT: Final = msgspec.UNSET
Values: TypeAlias = Sequence[Any] | Mapping[int, Any]  # the token of each slot
Choices: TypeAlias = Mapping[int, Sequence[Any]]  # the tokens of each slot, where arrays offer several
Keys: TypeAlias = set[Hashable]
Test: TypeAlias = Callable[[Any], bool]
FEW: Final = 8  # rules that are cheaper to check than to index


class Bucket(Protocol):
    """Rules of which part is known to hold."""

    def collect(self, values: Any, keys: Keys) -> None:
        """Add the keys of those that hold altogether."""

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        """The same where a slot has several tokens and any of them will do."""


class Hit:
    """A rule with nothing left to check."""

    __slots__ = ("key",)
    tests: tuple[tuple[int, Test, Field], ...] = ()

    def __init__(self, key: Hashable) -> None:
        self.key = key

    def collect(self, values: Any, keys: Keys) -> None:
        keys.add(self.key)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        keys.add(self.key)


class Check:
    """A rule with fields left: the first `unused` of its tests may still serve to tell it from others."""

    __slots__ = ("branch", "key", "tests", "unused")

    def __init__(self, key: Hashable, branch: Branch, tests: tuple[tuple[int, Test, Field], ...], unused: int) -> None:
        self.key, self.branch, self.tests, self.unused = key, branch, tests, unused

    def collect(self, values: Any, keys: Keys) -> None:
        for slot, test, _ in self.tests:
            if not test(values[slot]):
                return
        keys.add(self.key)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        for slot, test, _ in self.tests:
            if not any(map(test, choices[slot])):
                return
        keys.add(self.key)


class Few:
    """A handful of rules, checked one after the other."""

    __slots__ = ("members",)

    def __init__(self, members: tuple[Hit | Check, ...]) -> None:
        self.members = members

    def collect(self, values: Any, keys: Keys) -> None:
        for member in self.members:
            for slot, test, _ in member.tests:
                if not test(values[slot]):
                    break
            else:
                keys.add(member.key)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        for member in self.members:
            member.collect_any(choices, keys)


def test_at(slot: int, field: Field) -> tuple[int, Test, Field]:
    """The test of a field at a slot."""
    known = field.test_at
    if known is None or known[0] != slot:  # another matcher may have another slot for the path
        field.test_at = known = (slot, tester(field), field)
    return known


def tester(field: Field) -> Test:
    """The quickest function that says whether a token, or ABSENT, satisfies the field."""
    if not field.predicates:
        exact = field.exact
        if field.absent:
            return lambda value: value is ABSENT or value in exact
        if len(exact) == 1:
            (only,) = exact
            return lambda value: value == only
        return exact.__contains__
    if len(field.predicates) == 1 and not field.exact and not field.absent:
        (predicate,) = field.predicates
        if isinstance(predicate, Range):
            return _within(predicate)
        if not isinstance(predicate, AnythingBut | NoneOf | Present):
            return predicate.test
        if isinstance(predicate, AnythingBut):
            values = predicate.values
            return lambda value: value is not ABSENT and token(value) not in values
    whole, lacking = field.test, field.absent
    return lambda value: lacking if value is ABSENT else whole(value)


def _within(bounds: Range) -> Test:
    """The test of a range as a closure: of all operators it is the one most often left to check."""
    bottom, top, (with_bottom, with_top) = bounds.bottom, bounds.top, bounds.closed

    def test(value: Any) -> bool:
        if type(value) is float or (type(value) is int and comparable(value)):
            return bottom < value < top or (with_bottom and value == bottom) or (with_top and value == top)
        return False

    return test


def tokens_of(field: Field) -> set[object]:
    """The exact values of a field and what its numeric equalities ask for: values for which 1 and true must differ."""
    found = set(field.exact)
    for predicate in field.predicates:
        bottom = getattr(predicate, "bottom", None)
        if bottom is not None and bottom == getattr(predicate, "top", None):
            found.add(token(bottom))
    return found
