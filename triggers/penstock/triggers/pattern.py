"""One pattern: is this event of the kind described?  The language is Amazon EventBridge's; see docs/patterns.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.triggers.consistency import holds
from penstock.triggers.fields import Branch
from penstock.triggers.flattening import Node, flatten, tree
from penstock.triggers.pattern_parsing import parse


class Pattern:
    """An event pattern, compiled and immutable.

    mapping: the pattern in its strict JSON form.  Raises PatternError (a ValueError) with path and reason.
    """

    __slots__ = ("_tree", "branches")

    branches: tuple[Branch, ...]  # any one of them must hold

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.branches = parse(mapping)
        self._tree: Node | None = None

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether an event, decoded from JSON, matches.  Never raises; what is no object matches nothing."""
        if self._tree is None:
            self._tree = tree({field.path for branch in self.branches for field in branch})
        leaves = flatten(event, self._tree)
        return isinstance(event, Mapping) and any(holds(branch, leaves) for branch in self.branches)

    def __repr__(self) -> str:
        paths = sorted({field.path for branch in self.branches for field in branch})
        return f"Pattern(on {', '.join(paths[:8])}{', …' if len(paths) > 8 else ''})"
