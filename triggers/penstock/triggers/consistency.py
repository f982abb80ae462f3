"""Whether the leaves that satisfy a branch can come from one element of each array.

Two fields must not be satisfied by different elements of one array, at any depth; separate arrays are free. A field
that may be absent (`exists: false`) is absent if no leaf of its path lies in the elements chosen for the fields whose
path sorts before it.

The choice is made bottom-up over the array elements that hold leaves of interest, with sets of fields as bit masks, so
the time is linear in their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from penstock.triggers.fields import Branch, Field
from penstock.triggers.flattening import Element, Leaves
from penstock.triggers.operators import token

MAX_CHOICES = 1_024  # kept per element; more than a few need one field in several places of one object


def holds(branch: Branch, leaves: Leaves) -> bool:
    """Whether the branch matches.  Never raises; linear in the leaves."""
    hits: list[tuple[int, list[Element | None]]] = []
    bound, may_lack = 0, 0
    for bit, field in enumerate(branch):
        found = leaves.get(field.path, ())
        elements = [element for value, element in found if field.test(value)]
        if not elements and not (field.absent and (not found or any(element for _, element in found))):
            return False
        may_lack |= field.absent << bit
        bound += any(element is not None for _, element in found)
        hits.append((bit, elements))
    if bound == 0 or (bound == 1 and all(elements for _, elements in hits)):
        return True
    return _Choice(branch, leaves, hits, may_lack).possible()


class Rows:
    """The leaves of one event arranged for asking about many branches: by array element, and by value."""

    def __init__(self, leaves: Leaves) -> None:
        self.leaves = leaves
        self._arrays: dict[str, int | None] = {}  # the array whose elements hold a path's leaves; None: no such one
        self._in_elements: dict[str, bool] = {}
        self._at: dict[str, dict[Element | None, list[object]]] = {}
        self._of: dict[str, dict[object, list[Element | None]]] = {}

    def hold(self, branch: Branch) -> bool:
        """As `holds`, in time that does not grow with the event where the fields lie in one plain array."""
        bound = [field for field in branch if self._bound(field.path)]
        if len(bound) < 2 or any(field.absent for field in bound) or not self._one_array(bound):
            return holds(branch, self.leaves)
        if not all(self._free(field) for field in branch if field not in bound):
            return False
        rows = min((self._rows(field) for field in bound), key=len)
        return any(all(self._in_row(field, row) for field in bound) for row in rows)

    def _bound(self, path: str) -> bool:
        """Whether any leaf of a path lies in an array element."""
        if path not in self._in_elements:
            self._in_elements[path] = any(element for _, element in self.leaves.get(path, ()))
        return self._in_elements[path]

    def _one_array(self, bound: list[Field]) -> bool:
        arrays = {self._array(field.path) for field in bound}
        return len(arrays) == 1 and None not in arrays

    def _array(self, path: str) -> int | None:
        if path not in self._arrays:
            elements = {element for _, element in self.leaves[path]}
            plain = all(element is not None and element.parent is None for element in elements)
            arrays = {element.array for element in elements if element is not None}
            self._arrays[path] = arrays.pop() if plain and len(arrays) == 1 else None
        return self._arrays[path]

    def _free(self, field: Field) -> bool:
        found = self.leaves.get(field.path, ())
        return any(field.test(value) for value, _ in found) or (field.absent and not found)

    def _rows(self, field: Field) -> Collection[Element | None]:
        """The elements that may satisfy a field: those with its values, or all that have a leaf there."""
        if not field.plain:
            return self._values(field.path)
        if field.path not in self._of:
            of = self._of[field.path] = {}
            for value, element in self.leaves[field.path]:
                of.setdefault(token(value), []).append(element)
        known = self._of[field.path]
        return [element for value in field.exact for element in known.get(value, ())]

    def _in_row(self, field: Field, row: Element | None) -> bool:
        return any(field.test(value) for value in self._values(field.path).get(row, ()))

    def _values(self, path: str) -> dict[Element | None, list[object]]:
        if path not in self._at:
            at = self._at[path] = {}
            for value, element in self.leaves[path]:
                at.setdefault(element, []).append(value)
        return self._at[path]


class _Choice:
    """One question: the bits 0..n-1 say "satisfied by a leaf", n..2n-1 "absent among the elements chosen"."""

    def __init__(
        self, branch: Branch, leaves: Leaves, hits: list[tuple[int, list[Element | None]]], may_lack: int
    ) -> None:
        self.size = len(branch)
        self.may_lack = may_lack
        self.direct: dict[Element | None, int] = defaultdict(int)  # satisfied by a leaf right here
        self.present: dict[Element | None, int] = defaultdict(int)  # absence bits that a leaf right here rules out
        for bit, elements in hits:
            for element in elements:
                self.direct[element] |= 1 << bit
        for bit, field in enumerate(branch):
            if field.absent:
                for _, element in leaves.get(field.path, ()):
                    self.present[element] |= 1 << bit
        self.children: dict[Element | None, dict[int, list[Element]]] = {}
        self._link([*self.direct, *self.present])

    def _link(self, elements: Iterable[Element | None]) -> None:
        seen: set[Element] = set()
        for start in elements:
            element = start
            while element is not None and element not in seen:
                seen.add(element)
                arrays = self.children.setdefault(element.parent, {})
                arrays.setdefault(element.array, []).append(element)
                element = element.parent

    def possible(self) -> bool:
        everything = (1 << self.size) - 1
        choices, _ = self._family(None)
        return any((satisfied | absent) == everything for satisfied, absent in choices)

    def _family(self, root: Element | None) -> tuple[set[tuple[int, int]], int]:
        """The (satisfied, absent) masks possible at an element, and the absence bits that hold whatever is chosen.

        Elements nest as deep as the event's arrays, hence an explicit stack instead of recursion.
        """
        done: dict[Element | None, tuple[set[tuple[int, int]], int]] = {}
        order: list[Element | None] = [root]
        for element in order:
            for members in self.children.get(element, {}).values():
                order.extend(members)
        for element in reversed(order):
            done[element] = self._combined(element, done)
        return done[root]

    def _combined(
        self, element: Element | None, done: dict[Element | None, tuple[set[tuple[int, int]], int]]
    ) -> tuple[set[tuple[int, int]], int]:
        lacking = self.may_lack & ~self.present.get(element, 0)
        choices, never = {(self.direct.get(element, 0), lacking)}, lacking
        for members in self.children.get(element, {}).values():
            offered, free = self._array(members, done)
            joined = {(s | t, a & b) for s, a in choices for t, b in offered}
            choices = _best(joined)
            never &= free
        return choices, never

    def _array(
        self, members: list[Element], done: dict[Element | None, tuple[set[tuple[int, int]], int]]
    ) -> tuple[set[tuple[int, int]], int]:
        """The choices an array offers: none of its elements, or one."""
        free = self.may_lack
        for member in members:
            free &= done[member][1]
        offered = {(0, free)}
        for member in members:
            for satisfied, absent in done[member][0]:
                if satisfied:
                    later = -(satisfied & -satisfied) << 1  # fields after the first one chosen here
                    offered.add((satisfied, (absent & later) | (free & ~later)))
        return _best(offered), free


def _best(choices: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Without those that another one covers; bounded, so that no event makes it explode."""
    if len(choices) == 1:
        return choices
    ranked = sorted(choices, key=lambda choice: -(choice[0].bit_count() + choice[1].bit_count()))
    kept: list[tuple[int, int]] = []
    for satisfied, absent in ranked:
        if len(kept) == MAX_CHOICES:
            break
        if not any(satisfied | s == s and absent | a == a for s, a in kept):
            kept.append((satisfied, absent))
    return set(kept)
