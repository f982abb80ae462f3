"""Why an event does not match: the predicates that broke, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.triggers.consistency import holds
from penstock.triggers.fields import Branch, Field
from penstock.triggers.flattening import Leaves, flatten, tree
from penstock.triggers.pattern import Pattern


@dataclass(frozen=True, slots=True)
class Broken:
    """One predicate that an event does not satisfy.

    path: the field.  operator: as the pattern names it, "exact" for a plain value; "same element" where each field
    holds by itself, but in different elements of one array (path: those fields, joined by commas).
    expected: in the form of the pattern language.  found: the leaves at the path; () if there is none.
    """

    path: str
    operator: str
    expected: object
    found: tuple[object, ...]

    def __str__(self) -> str:
        found = ", ".join(map(repr, self.found[:5])) + (", …" if len(self.found) > 5 else "")
        return f"{self.path}: expected {self.operator} {self.expected!r}, found {found or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether an event matches, and if not, what broke.

    branches: for each way that `$or` leaves open, all predicates that broke; a field with several alternatives counts
    as broken when none holds, and then each of them is named.
    """

    matches: bool
    branches: tuple[tuple[Broken, ...], ...]

    @property
    def broken(self) -> tuple[Broken, ...]:
        """What broke in the branch that came nearest: the one with the fewest broken fields."""
        return min(self.branches, key=lambda branch: len({each.path for each in branch}))

    def __str__(self) -> str:
        return "matches" if self.matches else "; ".join(map(str, self.broken))


def explain(pattern: Pattern, event: Mapping[str, Any]) -> Explanation:
    """Tries every predicate of a pattern on an event.  Never raises; an event that is no object has no leaves."""
    leaves = flatten(event, tree({field.path for branch in pattern.branches for field in branch}))
    branches = tuple(_broken(branch, leaves) for branch in pattern.branches)
    return Explanation(not all(branches) and isinstance(event, Mapping), branches)


def _broken(branch: Branch, leaves: Leaves) -> tuple[Broken, ...]:
    if holds(branch, leaves):
        return ()
    failed = [field for field in branch if not _alone(field, leaves)]
    if not failed:
        inside = [field.path for field in branch if any(element for _, element in leaves.get(field.path, ()))]
        found = tuple(value for path in inside for value, _ in leaves[path])
        return (Broken(", ".join(inside), "same element", "one array element that satisfies all of them", found),)
    return tuple(
        Broken(field.path, operator, expected, tuple(value for value, _ in leaves.get(field.path, ())))
        for field in failed
        for operator, expected in field.alternatives()
    )


def _alone(field: Field, leaves: Leaves) -> bool:
    """Whether some leaf satisfies the field, whatever element it lies in."""
    return holds((field,), leaves)
