"""Compiled patterns: branches of fields, each with its alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from penstock.triggers.operators import ABSENT, FALSE, TRUE, Predicate


class Field(msgspec.Struct, gc=False, eq=False):
    """What one path asks for: any one of its alternatives.

    path: keys joined by dots.  exact: tokens of the plain values.  predicates: all other operators.
    absent: whether a missing leaf is an alternative (`exists: false`).
    plain: whether it asks for exact values only, so that a hash finds it.
    """

    path: str
    exact: tuple[object, ...] | frozenset[object]
    predicates: tuple[Predicate, ...]
    absent: bool
    plain: bool
    rank: int = -1  # how well the index tells rules apart by it; below 0: nobody has asked yet

    @classmethod
    def of(cls, path: str, exact: tuple[object, ...], predicates: tuple[Predicate, ...], absent: bool) -> Field:
        """The field of some alternatives."""
        values = exact if len(exact) < 9 else frozenset(exact)
        return cls(path, values, predicates, absent, not predicates and not absent)

    def test(self, value: object) -> bool:
        """Whether a scalar, its token, or ABSENT satisfies one alternative."""
        if value is ABSENT:
            return self.absent
        if self.exact and (TRUE if value is True else FALSE if value is False else value) in self.exact:
            return True
        return any(predicate.test(value) for predicate in self.predicates)

    def alternatives(self) -> Iterator[tuple[str, object]]:
        """(operator, expected) of each alternative, exact values first."""
        for value in self.exact:
            yield "exact", True if value is TRUE else False if value is FALSE else value
        for predicate in self.predicates:
            yield predicate.operator, predicate.expected
        if self.absent:
            yield "exists", {"exists": False}


Branch: TypeAlias = tuple[Field, ...]  # all must hold; in order of path
