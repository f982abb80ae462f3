"""Where the index keeps the rules that are left once some of their fields are known to hold.

A bucket is a `Hit`, a tuple of a few rules that are checked one after the other, or a `Node` that tells many rules
apart by another field. `values` holds, by slot, the token of the event's leaf at each named path, or ABSENT. Readers
take no lock: what they read is either immutable and replaced as a whole, or a dictionary of which they ask one key or
take one copy.

There are hundreds of thousands of buckets, hence tuples and structs: Python's garbage collector passes over those that
hold no containers, so that loading many rules is not spent on walking the rules that are there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from penstock.triggers.fields import Branch, Field
from penstock.triggers.operators import (
    ABSENT,
    EXACT_INTEGER,
    AnythingBut,
    IgnoreCase,
    Prefix,
    Range,
    Suffix,
    Wildcard,
    comparable,
    token,
)

if TYPE_CHECKING:
    from penstock.triggers.index_node import Node

Values: TypeAlias = Sequence[Any] | Mapping[int, Any]  # the token of each slot
Keys: TypeAlias = set[Hashable]
FEW: Final = 24  # rules that are cheaper to check than to index


class Choices(dict[int, list[Any]]):
    """The tokens of each slot, where arrays offer several."""

    def __missing__(self, slot: int) -> list[Any]:
        return [ABSENT]


# How a field is checked: what `wanted` is, and how the token of the leaf is compared with it.
ONE_OF: Final = 0  # a container of tokens, the leaf's is among them
NONE_OF: Final = 1  # the same, it is not
WITHIN: Final = 2  # the span of a Range
BEGINS: Final = 3  # a text
ENDS: Final = 4
SAME: Final = 5  # a text of ASCII in lower case; the leaf's letter case does not count
TESTS: Final = 6  # a predicate or field
CONTAINS: Final = 7  # a text
EQUALS: Final = 8  # a token
HOLDS: Final = 9  # nothing is left to check; only as a rule's first check

# what a rule is known by: its key; slot, way, `wanted`, slot, way, `wanted`... of all fields but the one that is
# checked first; its branch
Rest: TypeAlias = tuple[Hashable, tuple[Any, ...], Branch]
Member: TypeAlias = tuple[int, int, Any, Rest]  # slot, way and `wanted` of the field that is checked first; the rest
STRIDE: Final = 4  # the members of a bucket lie one behind the other in a single tuple, which is quicker to walk


_LEAST: Final = -EXACT_INTEGER  # whole numbers from here to there need no closer look
_MOST: Final = EXACT_INTEGER


class Hit(msgspec.Struct, eq=False):
    """One rule with nothing left to check."""

    key: Hashable
    branch: Branch

    def collect(self, values: Any, keys: Keys) -> None:
        keys.add(self.key)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        keys.add(self.key)


Few: TypeAlias = tuple[Any, ...]  # members, flattened
Bucket: TypeAlias = "Few | Hit | Node"


def way(field: Field) -> tuple[int, Any]:
    """The quickest way to check a field, and what for."""
    if field.plain:
        return (EQUALS, *field.exact) if len(field.exact) == 1 else (ONE_OF, field.exact)
    if field.absent and not field.predicates:
        return (ONE_OF, type(field.exact)((*field.exact, ABSENT))) if field.exact else (EQUALS, ABSENT)
    if len(field.predicates) != 1 or field.exact or field.absent:
        return TESTS, field
    only = field.predicates[0]
    if isinstance(only, Range):
        return (WITHIN, only.span) if only.spanned else (TESTS, only)
    if isinstance(only, Prefix):
        return BEGINS, only.text
    if isinstance(only, Suffix):
        return ENDS, only.text
    if isinstance(only, AnythingBut):
        return NONE_OF, only.values
    if isinstance(only, IgnoreCase) and only.where == "whole" and only.lowered is not None:
        return SAME, only.lowered
    return TESTS, only


def checks(fields: Iterable[Field], slots: Mapping[str, int]) -> tuple[Any, ...]:
    """Slot, way and `wanted` of all fields."""
    found: list[Any] = []
    for field in fields:
        slot = slots[field.path]
        kind, wanted = way(field)
        if kind == TESTS and type(wanted) is Wildcard:
            found += _checks_of(slot, wanted)
        else:
            found += slot, kind, wanted
    return tuple(found)


def _checks_of(slot: int, wildcard: Wildcard) -> tuple[Any, ...]:
    """The checks of a wildcard: before the whole, one literal that is seldom there, other than its beginning."""
    parts = wildcard.parts
    if len(parts) == 3 and not parts[0] and not parts[2]:
        return slot, CONTAINS, parts[1]
    if len(parts) > 2:
        return slot, CONTAINS, max(parts[1:-1], key=len), slot, TESTS, wildcard
    return (slot, ENDS, parts[-1], slot, TESTS, wildcard) if parts[-1] else (slot, TESTS, wildcard)


def members_of(few: Few) -> Iterable[Member]:
    """The members of a bucket, one by one."""
    return zip(few[0::STRIDE], few[1::STRIDE], few[2::STRIDE], few[3::STRIDE], strict=True)


def check(few: Few, values: Any, keys: Keys) -> None:
    """Add the keys of the members that hold.

    As `_passes` says, but spelled out, and without a look at what most members have in vain: of a hundred thousand
    rules none is in the processor's cache, and to wait for it takes longer than to compare.
    """
    for at in range(0, len(few), STRIDE):
        value, kind, wanted = values[few[at]], few[at + 1], few[at + 2]
        if kind == EQUALS:
            if value != wanted:
                continue
        elif kind == WITHIN:
            if type(value) is not float and (
                type(value) is not int or not (_LEAST <= value <= _MOST or comparable(value))
            ):
                continue
            if not wanted.real <= value <= wanted.imag:
                continue
        elif kind == BEGINS:
            if type(value) is not str or not value.startswith(wanted):
                continue
        elif kind == SAME:
            if type(value) is not str or len(value) != len(wanted) or not value.isascii() or value.lower() != wanted:
                continue
        elif kind == ENDS:
            if type(value) is not str or not value.endswith(wanted):
                continue
        elif kind == NONE_OF:
            if value in wanted:
                continue
        elif kind == ONE_OF:
            if value not in wanted:
                continue
        elif kind == CONTAINS:
            if type(value) is not str or wanted not in value:
                continue
        elif kind == TESTS and not wanted.test(value):
            continue
        key, more, _ = few[at + 3]
        if not more or _all(more, values):
            keys.add(key)


def _passes(kind: int, wanted: Any, value: Any) -> bool:
    """Whether a token, or ABSENT, is as wanted."""
    if kind == EQUALS:
        return bool(value == wanted)
    if kind == ONE_OF:
        return value in wanted
    if kind == NONE_OF:
        return value not in wanted
    if kind == BEGINS:
        return type(value) is str and value.startswith(wanted)
    if kind == ENDS:
        return type(value) is str and value.endswith(wanted)
    if kind == SAME:
        return type(value) is str and value.isascii() and value.lower() == wanted
    if kind == CONTAINS:
        return type(value) is str and wanted in value
    if kind == WITHIN:
        number = type(value) is float or (type(value) is int and comparable(value))
        return number and wanted.real <= value <= wanted.imag
    return kind == HOLDS or bool(wanted.test(value))


def _all(more: tuple[Any, ...], values: Any) -> bool:
    for at in range(0, len(more), 3):  # noqa: SIM110 - a generator takes three times as long
        if not _passes(more[at + 1], more[at + 2], values[more[at]]):
            return False
    return True


def check_any(few: Few, choices: Choices, keys: Keys) -> None:
    """The same where a slot has several tokens and any of them will do."""
    for at in range(0, len(few), STRIDE):
        if _any(few[at + 1], few[at + 2], choices[few[at]]):
            key, more, _ = few[at + 3]
            if all(_any(more[at + 1], more[at + 2], choices[more[at]]) for at in range(0, len(more), 3)):
                keys.add(key)


def _any(kind: int, wanted: Any, values: list[Any]) -> bool:
    for value in values:  # noqa: SIM110 - a generator takes three times as long
        if _passes(kind, wanted, value):
            return True
    return False


def may_confuse(field: Field) -> bool:
    """Whether 1 and true may have to be told apart; a quick no for most fields, so that many rules load quickly."""
    if field.plain:
        return len(field.exact) > 1 or type(next(iter(field.exact))) is not str
    return bool(field.exact) or any(type(each) is AnythingBut or type(each) is Range for each in field.predicates)


def tokens_of(field: Field) -> set[object]:
    """The values that tokens are compared with by being equal: 1 and true must differ where these are among them."""
    found = set(field.exact)
    for predicate in field.predicates:
        if isinstance(predicate, AnythingBut):
            found.update(predicate.values)
        if isinstance(predicate, Range) and predicate.form[0] == "=":
            found.add(token(predicate.form[1]))
    return found
