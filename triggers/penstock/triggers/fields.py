"""Compiled patterns: branches of fields, each with its alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from penstock.triggers.operators import FALSE, TRUE, Predicate, token


class Field:
    """What one path asks for: any one of its alternatives.

    path: keys joined by dots.  exact: tokens of the plain values.  predicates: all other operators.
    absent: whether a missing leaf is an alternative (`exists: false`).
    test_at: the index's own test with the slot it is for; equal fields are one object, so it is kept here.
    """

    __slots__ = ("absent", "exact", "path", "predicates", "test_at")

    def __init__(self, path: str, exact: tuple[object, ...], predicates: tuple[Predicate, ...], absent: bool) -> None:
        self.path, self.predicates, self.absent = path, predicates, absent
        self.test_at: tuple[int, Callable[[Any], bool], Field] | None = None
        self.exact: tuple[object, ...] | frozenset[object] = exact if len(exact) < 9 else frozenset(exact)

    def test(self, value: object) -> bool:
        """Whether a present scalar satisfies one alternative."""
        if self.exact and token(value) in self.exact:
            return True
        return any(predicate.test(value) for predicate in self.predicates)

    @property
    def plain(self) -> bool:
        """Whether it asks for exact values only, so that a hash finds it."""
        return not self.predicates and not self.absent

    def alternatives(self) -> Iterator[tuple[str, object]]:
        """(operator, expected) of each alternative, exact values first."""
        for value in self.exact:
            yield "exact", True if value is TRUE else False if value is FALSE else value
        for predicate in self.predicates:
            yield predicate.operator, predicate.expected
        if self.absent:
            yield "exists", {"exists": False}


Branch: TypeAlias = tuple[Field, ...]  # all must hold; in order of path
