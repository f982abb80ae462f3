"""By which of its fields a rule may be found: the choice that keeps the index from walking rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.triggers import index_numbers as numbers
from penstock.triggers import index_tables as tables
from penstock.triggers import operators as op
from penstock.triggers.fields import Field
from penstock.triggers.index_buckets import FEW

MAX_TUPLES: Final = 16  # what value lists may multiply out to when several fields make one key
MAX_TOGETHER: Final = 6  # exact fields in one key
MAX_TRIED: Final = 12  # fields with other operators that are thought of
MAX_SPREAD: Final = 512  # places of one rule, where its lists multiply out over several levels
# a table: the slots of a set of exact fields, or a slot and the name of an operator's table
Where: TypeAlias = tuple[Any, ...]
Groups: TypeAlias = Iterable[tuple[Where, object]]  # sets of exact fields, and their tables
Place: TypeAlias = tuple[Where, object]  # a table, and the key in it


class Access(NamedTuple):
    """One way to find a rule.

    places: where it is put, all of them.  used: the fields that are looked at.  known: whether being found says that
    they hold.
    """

    places: tuple[Place, ...]
    used: tuple[Field, ...]
    known: bool


class Worth(NamedTuple):
    """What is known of a kind of table beforehand.

    odds: how likely an event is to come upon any one rule in it, as a guess before there are rules.  least: the same
    once there are, at the least.  cost: of a look-up, in checks of one rule.  few: how many rules under one key are
    not too many.
    """

    odds: float
    least: float
    cost: float
    few: int = FEW


_AFFIX = Worth(0.02, 0, 3)
_WORTH: Final[dict[str, Worth]] = {
    "value": Worth(0.05, 0, 2),
    "prefix": _AFFIX,
    "suffix": _AFFIX,
    "caseless": Worth(0.02, 0, 2),
    "caseless-prefix": _AFFIX,
    "caseless-suffix": _AFFIX,
    "gram": Worth(0.02, 0, 30),
    "address": Worth(0.01, 0, 10),
    "block": Worth(0.2, 0, 15),
    "cell": Worth(0.05, 0, 4, FEW // 2),
    "above": Worth(0.5, 0.3, 4),
    "below": Worth(0.5, 0.3, 4),
    "present": Worth(1, 1, 1),
    "absent": Worth(1, 0.5, 1),
}
_WORD = Worth(0.02, 0, 5)
_GROUP = Worth(0.02, 0, 0.2)

_TABLES: Final[dict[str, Callable[[], tables.Table]]] = {
    "value": tables.Table,
    "prefix": tables.Prefixes,
    "suffix": tables.Suffixes,
    "caseless": tables.Caseless,
    "caseless-prefix": tables.CaselessPrefixes,
    "caseless-suffix": tables.CaselessSuffixes,
    "gram": tables.Grams,
    "address": tables.Addresses,
    "block": tables.Blocks,
    "cell": numbers.Cells,
    "above": lambda: numbers.Thresholds(below=False),
    "below": lambda: numbers.Thresholds(below=True),
    "present": tables.Presence,
    "absent": tables.Table,  # asked by the node itself, when there is no leaf
}


def is_group(where: Where) -> bool:
    """Whether a table is for a set of exact fields."""
    return type(where[-1]) is int


def table_for(where: Where) -> tables.Table:
    """A new, empty table."""
    if is_group(where):
        return tables.Table()
    name: str = where[1]
    build = _TABLES.get(name)
    return tables.Words(name[-1]) if build is None else build()


def worth(where: Where) -> Worth:
    """What is known of a table beforehand."""
    return _GROUP if is_group(where) else _WORTH.get(where[1], _WORD)


def by_values(fields: tuple[Field, ...], slots: Mapping[str, int]) -> Access:
    """A rule found by the tuple of values of its exact fields; by the bare value where it is one field."""
    if len(fields) == 1:
        where: Where = (slots[fields[0].path],)
        return Access(tuple([(where, key) for key in fields[0].exact]), fields, True)
    where = tuple([slots[field.path] for field in fields])
    return Access(tuple([(where, key) for key in product(*[field.exact for field in fields])]), fields, True)


def shape(plain: list[Field]) -> tuple[Field, ...]:
    """The exact fields that make one key: those with the fewest values, as long as their lists multiply out to few."""
    chosen: list[Field] = []
    tuples = 1
    for field in sorted(plain, key=_values):
        if chosen and (tuples * len(field.exact) > MAX_TUPLES or len(chosen) == MAX_TOGETHER):
            break
        chosen.append(field)
        tuples *= len(field.exact)
    return tuple(sorted(chosen, key=_path))


def accesses(fields: tuple[Field, ...], slots: Mapping[str, int], groups: Groups, spread: int) -> Iterator[Access]:
    """The ways to find a rule by some of its fields, the most promising first.

    groups: sets of exact fields that there are, with their tables, and that may serve for a rule with more of them.
    spread: in how many places the rule lies already; ways with several more are left out where that would multiply out
    to too many.
    """
    plain = [field for field in fields if field.plain]
    if len(plain) == 1:
        if _fits(plain, spread):
            yield by_values((plain[0],), slots)
    elif plain:
        yield from _exact(plain, slots, groups, spread)
    if len(plain) == len(fields):
        return
    others = [field for field in fields if not field.plain and rank(field)]
    if len(others) > 1:
        others.sort(key=rank, reverse=True)
    for field in others[:MAX_TRIED]:
        for access in _ways(field, slots[field.path]):
            if spread == 1 or len(access.places) == 1 or spread * len(access.places) <= MAX_SPREAD:
                yield access


def _exact(plain: list[Field], slots: Mapping[str, int], groups: Groups, spread: int) -> Iterator[Access]:
    fields = shape(plain)
    if _fits(fields, spread):
        yield by_values(fields, slots)
    at = {slots[field.path]: field for field in plain}
    for group, _ in groups:
        if 1 < len(group) < len(at) and at.keys() >= set(group):
            some = tuple([at[slot] for slot in group])
            if _tuples(some) <= MAX_TUPLES and _fits(some, spread):
                yield by_values(some, slots)
    if len(fields) > 1:
        for field in sorted(plain, key=_values)[:MAX_TOGETHER]:
            if _fits((field,), spread):
                yield by_values((field,), slots)


def _fits(fields: Iterable[Field], spread: int) -> bool:
    if spread == 1:
        return True
    count = _tuples(fields)
    return count == 1 or spread * count <= MAX_SPREAD


def _tuples(fields: Iterable[Field]) -> int:
    count = 1
    for field in fields:
        count *= len(field.exact)
    return count


def _values(field: Field) -> int:
    return len(field.exact)


def _path(field: Field) -> str:
    return field.path


def rank(field: Field) -> int:
    """How well a field tells rules apart; 0: not at all."""
    if field.rank < 0:
        field.rank = 110 - min(len(field.exact), 9) if field.plain else _rank_of(field)
    return field.rank


def _rank_of(field: Field) -> int:
    found = [_rank(predicate) for predicate in field.predicates]
    return min(found + [100] * bool(field.exact) + [2] * field.absent)


def _rank(predicate: op.Predicate) -> int:
    if isinstance(predicate, op.Range):
        return _rank_of_range(predicate)
    if isinstance(predicate, op.Prefix | op.Suffix):
        return 40 + min(len(predicate.text), 20) if predicate.text else 0
    if isinstance(predicate, op.Wildcard):
        return _rank_of_wildcard(predicate)
    if isinstance(predicate, op.IgnoreCase):
        return _rank_of_caseless(predicate)
    return _RANKS.get(type(predicate), 0)


_RANKS: Final[dict[type, int]] = {op.Address: 100, op.Block: 50, op.Present: 1}


def _rank_of_caseless(predicate: op.IgnoreCase) -> int:
    if predicate.lowered is None:
        return 0
    if predicate.where == "whole":
        return 90
    return 40 + min(len(predicate.text), 20) if predicate.text else 0


def _rank_of_wildcard(wildcard: op.Wildcard) -> int:
    longest = max(map(len, wildcard.parts))
    if len(wildcard.parts) == 1:
        return 100
    if is_simple(wildcard):
        return 40 + min(longest, 20) if longest else 0
    where, key = next(tables.pieces_of(wildcard))
    return 28 + 2 * len(key) if where == "gram" else 40 + min(len(key), 20)


def _rank_of_range(bounds: op.Range) -> int:
    if bounds.form[0] == "=":
        return 90
    if numbers.cells_of(bounds, 1):
        return 45
    return 10 if len(bounds.form) == 2 else 0


def _ways(field: Field, slot: int) -> Iterator[Access]:
    """The ways to find a rule by one field with other operators than exact values."""
    only = field.predicates[0] if len(field.predicates) == 1 and not field.exact and not field.absent else None
    if isinstance(only, op.Wildcard) and not is_simple(only):
        for name, key in tables.pieces_of(only):
            yield Access((((slot, name), key),), (field,), False)
        return
    if isinstance(only, op.Range) and only.form[0] != "=":
        for coarse in numbers.GRIDS:
            cells = numbers.cells_of(only, coarse)
            if cells is not None:
                yield Access(tuple([((slot, "cell"), cell) for cell in cells]), (field,), False)
        if numbers.cells_of(only, 1) is not None:
            return
    yield Access(tuple(((slot, name), key) for name, key in places(field)), (field,), is_precise(field))


def places(field: Field) -> Iterable[tuple[str, object]]:
    """Where a rule is put when found by this field: the names of tables, and the keys in them."""
    found: dict[tuple[str, object], None] = {("value", value): None for value in field.exact}
    if field.absent:
        found["absent", None] = None
    for predicate in field.predicates:
        found.update(dict.fromkeys(_places(predicate)))
    return found


def spread_of(fields: Iterable[Field]) -> int:
    """In how many places a rule lies when found by these fields; the same by whatever way."""
    count = 1
    for field in fields:
        if field.plain:
            count *= len(field.exact)
        elif len(field.predicates) > 1 or field.exact or field.absent or isinstance(field.predicates[0], op.Range):
            count *= sum(1 for _ in places(field))
    return count


def is_precise(field: Field) -> bool:
    """Whether being found by this field says that it holds."""
    for predicate in field.predicates:
        if isinstance(predicate, op.Wildcard) and not is_simple(predicate):
            return False
        if isinstance(predicate, op.Range) and predicate.form[0] != "=" and numbers.cells_of(predicate, 1) is not None:
            return False
    return True


def is_simple(wildcard: op.Wildcard) -> bool:
    """Whether it is a plain text, a prefix or a suffix."""
    parts = wildcard.parts
    return len(parts) == 1 or (len(parts) == 2 and "" in parts)


def _places(predicate: op.Predicate) -> list[tuple[str, object]]:
    match predicate:
        case op.Address():
            return [("address", predicate.address)]
        case op.Prefix(text=text):
            return [("prefix", text)]
        case op.Suffix(text=text):
            return [("suffix", text)]
        case op.IgnoreCase():
            return [("caseless" if predicate.where == "whole" else f"caseless-{predicate.where}", predicate.lowered)]
        case op.Wildcard(parts=(text,)):
            return [("value", text)]
        case op.Wildcard(parts=(first, last)) if not first or not last:
            return [("prefix", first) if first else ("suffix", last)]
        case op.Wildcard():
            return [next(tables.pieces_of(predicate))]
        case op.Block():
            return [("block", (predicate.first, predicate.bits))]
        case op.Range():
            return _range_places(predicate)
    return [("present", None)]


def _range_places(bounds: op.Range) -> list[tuple[str, object]]:
    if bounds.form[0] == "=":
        return [("value", bounds.form[1])]
    for coarse in numbers.GRIDS:
        cells = numbers.cells_of(bounds, coarse)
        if cells is not None:
            return [("cell", cell) for cell in cells]
    if bounds.form[0] in ("<", "<="):
        return [("below", (bounds.top, int(bounds.closed[1])))]
    return [("above", (bounds.bottom, int(not bounds.closed[0])))]
