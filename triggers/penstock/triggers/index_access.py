"""By which of its fields a rule is found: the choice that keeps the index from walking rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Final, TypeAlias

from penstock.triggers import index_tables as tables
from penstock.triggers import operators as op
from penstock.triggers.fields import Field

MAX_TUPLES: Final = 16  # what value lists may multiply out to when several fields make one key
MAX_TOGETHER: Final = 6  # exact fields in one key
Place: TypeAlias = tuple[str, object]  # the name of a table, and the key in it

TABLES: Final[dict[str, Callable[[], tables.Table]]] = {
    "value": tables.Values,
    "prefix": tables.Prefixes,
    "suffix": tables.Suffixes,
    "caseless": tables.Caseless,
    "caseless-prefix": tables.CaselessPrefixes,
    "caseless-suffix": tables.CaselessSuffixes,
    "gram": tables.Grams,
    "address": tables.Addresses,
    "block": tables.Blocks,
    "cell": tables.Cells,
    "above": lambda: tables.Thresholds(below=False),
    "below": lambda: tables.Thresholds(below=True),
    "present": tables.Presence,
    "absent": tables.Values,  # asked by the node itself, when there is no leaf
}


def shape(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The exact fields that make one key: those with the fewest values, as long as their lists multiply out to few."""
    chosen: list[Field] = []
    tuples = 1
    for field in sorted((field for field in fields if field.plain), key=lambda field: len(field.exact)):
        if chosen and (tuples * len(field.exact) > MAX_TUPLES or len(chosen) == MAX_TOGETHER):
            break
        chosen.append(field)
        tuples *= len(field.exact)
    return tuple(sorted(chosen, key=lambda field: field.path))


def tuples_of(fields: tuple[Field, ...]) -> Iterable[object]:
    """The keys of a rule under its exact fields: bare tokens for one field, tuples for several."""
    return fields[0].exact if len(fields) == 1 else product(*(field.exact for field in fields))


def rank(field: Field) -> int:
    """How well a field tells rules apart when it has other operators than exact values; 0: not at all."""
    return min(
        [_rank(predicate) for predicate in field.predicates]
        + ([100] if field.exact else [])
        + ([2] if field.absent else [])
    )


def _rank(predicate: op.Predicate) -> int:
    match predicate:
        case op.Address():
            return 100
        case op.IgnoreCase(lowered=None) | op.BigInteger():
            return 0
        case op.IgnoreCase(where="whole"):
            return 90
        case op.Prefix(text=text) | op.Suffix(text=text) | op.IgnoreCase(text=text):
            return 40 + min(len(text), 20) if text else 0
        case op.Wildcard():
            longest = max(map(len, predicate.parts))
            if _simple(predicate):
                return 100 if len(predicate.parts) == 1 else 40 + min(longest, 20) if longest else 0
            return 28 + 2 * min(longest, 5)
        case op.Range():
            return (
                90
                if predicate.bottom == predicate.top
                else 45
                if tables.cells_of(predicate)
                else 10
                if _one_ended(predicate)
                else 0
            )
        case op.Block():
            return 50
        case op.Present():
            return 1
    return 0


def _one_ended(bounds: op.Range) -> bool:
    return bounds.bottom == -op.LARGEST or bounds.top == op.LARGEST


def places(field: Field) -> tuple[Iterable[Place], list[op.Wildcard], bool]:
    """Where a rule is put when found by this field.

    Returns the places; the wildcards, of each of which the rarest piece is one more place; and whether being found
    there says that the field holds.
    """
    found: list[Place] = [("value", value) for value in field.exact]
    if field.absent:
        found.append(("absent", None))
    wildcards: list[op.Wildcard] = []
    precise = True
    for predicate in field.predicates:
        if isinstance(predicate, op.Wildcard) and not _simple(predicate):
            wildcards.append(predicate)
            precise = False
        else:
            some = _places(predicate)
            precise = precise and some[0][0] != "cell"
            found += some
    return dict.fromkeys(found), wildcards, precise


def wildcard_places(wildcard: op.Wildcard) -> list[Place]:
    """Where a wildcard may be kept, any one of them: under its beginning, its end, or a piece of its literals."""
    first, last = wildcard.parts[0], wildcard.parts[-1]
    ends: list[Place] = [("prefix", first)] if first else []
    ends += [("suffix", last)] if last else []
    return ends + [("gram", piece) for piece in tables.pieces_of(wildcard)]


def _simple(wildcard: op.Wildcard) -> bool:
    """Whether it is a plain text, a prefix or a suffix."""
    parts = wildcard.parts
    return len(parts) == 1 or (len(parts) == 2 and "" in parts)


def _places(predicate: op.Predicate) -> list[Place]:
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
        case op.Wildcard(parts=(first, last)):
            return [("prefix", first) if first else ("suffix", last)]
        case op.Block():
            return [("block", (predicate.first, predicate.bits))]
        case op.Range():
            return _range_places(predicate)
    return [("present", None)]


def _range_places(bounds: op.Range) -> list[Place]:
    if bounds.bottom == bounds.top:
        return [("value", bounds.bottom)]
    cells = tables.cells_of(bounds)
    if cells is not None:
        return [("cell", cell) for cell in cells]
    if bounds.bottom == -op.LARGEST:
        return [("below", (bounds.top, int(bounds.closed[1])))]
    return [("above", (bounds.bottom, int(not bounds.closed[0])))]
