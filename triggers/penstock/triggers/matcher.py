"""Many patterns at once: an index that finds the matching ones without walking them."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from copy import copy
from typing import Any

from penstock.triggers.consistency import Rows
from penstock.triggers.decoding import GIVES_UP, Unplain, decode, reader
from penstock.triggers.explaining import Explanation, explain
from penstock.triggers.flattening import Node as Paths
from penstock.triggers.flattening import flatten, tree
from penstock.triggers.index_buckets import Choices, Keys, may_confuse, tokens_of
from penstock.triggers.index_node import Node, enter
from penstock.triggers.index_rule import Rule
from penstock.triggers.operators import ABSENT, FALSE, TRUE, token
from penstock.triggers.pattern import Pattern

_CONFUSED = frozenset((TRUE, FALSE, 0, 1))  # tokens that Python's booleans would hit by mistake


class _Values(dict[int, Any]):
    """Tokens by slot; a slot that is not there has no leaf."""

    def __missing__(self, slot: int) -> Any:
        return ABSENT


class _View:
    """How events are read for the paths that are named now; replaced as a whole when a new path comes up."""

    __slots__ = ("decode", "of_mapping", "pick", "settle", "slots", "tree")

    def __init__(self, slots: dict[str, int], exact: set[str], *, unique: bool) -> None:
        self.slots = dict(slots)
        self.tree: Paths = tree(slots)
        quick = reader(slots, exact, unique=unique)
        self.decode = _give_up if quick is None else quick.decode
        self.pick = _give_up if quick is None else quick.pick
        self.settle = None if quick is None else quick.settle
        self.of_mapping = _give_up if quick is None else quick.of_mapping


def _give_up(_: object) -> Any:
    raise Unplain


class Matcher:
    """Finds which of many patterns an event matches; its time hardly grows with their number.

    Any number of threads may match while one adds or removes: each match sees a rule as before or as after the change,
    never neither.  Writers wait for each other.

    unique_keys: whoever calls `match_json` vouches that no object of an event has a key twice, which saves the search
    for it; where one has after all, the last value counts.
    """

    def __init__(self, *, unique_keys: bool = False) -> None:
        self._unique_keys = unique_keys
        self._patterns: dict[Hashable, Pattern] = {}
        self._root = Node()
        self._slots: dict[str, int] = {}  # a path keeps its slot for good
        self._exact: set[str] = set()  # paths at which booleans must be told from 1 and 0
        self._view: _View | None = None
        self._writing = threading.RLock()

    def __len__(self) -> int:
        return len(self._patterns)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._patterns

    def add(self, key: Hashable, pattern: Pattern) -> None:
        """Look for a pattern under a key; a key that is there already gets the new pattern instead."""
        with self._writing:
            old = self._patterns.get(key)
            if old is pattern:
                return
            self._name_paths(pattern)
            self._patterns[key] = pattern
            for branch in pattern.branches:
                self._root.add(Rule(key, branch, self._slots, branch))
            if old is not None:
                # a match under way may have passed the new place before and reach the old one after: it starts again
                self._view = copy(self._view)
                self._withdraw(key, old)

    def remove(self, key: Hashable) -> None:
        """Forget a key.  Raises KeyError if it is not there."""
        with self._writing:
            self._withdraw(key, self._patterns.pop(key))

    def match(self, event: Mapping[str, Any]) -> set[Hashable]:
        """The keys of all patterns that an event, decoded from JSON, matches.  Never raises."""
        while True:
            view = self._view or self._renewed()
            keys: Keys = set()
            try:
                self._root.collect(view.of_mapping(event), keys)
            except GIVES_UP:
                keys = self._walked(view, event)
            except IndexError:  # a rule with a path that this view does not know yet
                continue
            if self._view is view:
                return keys

    def match_json(self, body: bytes) -> set[Hashable]:
        """The same for an event as JSON; text that is no JSON object matches nothing.  Never raises.

        Of a key that an object has twice both values count, as a streaming reader sees them.
        """
        root = self._root
        while True:
            view = self._view or self._renewed()
            keys: Keys = set()
            try:
                values = view.pick(view.decode(body))
                if view.settle is not None:
                    values = view.settle(values, body)
                for pick, get in root.quick:  # as root.collect(values, keys), without the call
                    bucket = get(pick(values))
                    if bucket is not None:
                        enter(bucket, values, keys)
                if root.further:
                    root.collect_further(values, keys)
            except GIVES_UP:
                keys = self._walked(view, decode(body, unique=self._unique_keys))
            except IndexError:  # a rule with a path that this view does not know yet
                continue
            if self._view is view:
                return keys

    def explain(self, event: Mapping[str, Any], key: Hashable) -> Explanation:
        """Why an event matches the pattern under a key or does not.  Raises KeyError if the key is not there."""
        return explain(self._patterns[key], event)

    def _walked(self, view: _View, event: object) -> Keys:
        """The keys for an event of any form, read leaf by leaf."""
        keys: Keys = set()
        if not isinstance(event, Mapping):
            return keys
        leaves = flatten(event, view.tree)
        elements = any(element is not None for found in leaves.values() for _, element in found)
        if not elements and all(len(found) == 1 for found in leaves.values()):
            self._root.collect(_Values({view.slots[path]: token(found[0][0]) for path, found in leaves.items()}), keys)
            return keys
        choices = Choices()
        for path, found in leaves.items():
            tokens = dict.fromkeys([token(value) for value, _ in found])
            if elements and any(element is not None for _, element in found):
                tokens[ABSENT] = None  # absent from the elements that other fields choose
            choices[view.slots[path]] = [*tokens]
        self._root.collect_any(choices, keys)
        if not elements or not keys:
            return keys
        rows = Rows(leaves)
        return {key for key in keys if self._consistent(key, rows)}

    def _consistent(self, key: Hashable, rows: Rows) -> bool:
        pattern = self._patterns.get(key)
        return pattern is not None and any(rows.hold(branch) for branch in pattern.branches)

    def _renewed(self) -> _View:
        with self._writing:
            if self._view is None:
                self._view = _View(self._slots, self._exact, unique=self._unique_keys)
            return self._view

    def _name_paths(self, pattern: Pattern) -> None:
        for branch in pattern.branches:
            for field in branch:
                if field.path not in self._slots:
                    self._slots[field.path] = len(self._slots)
                    self._view = None
                if field.path not in self._exact and may_confuse(field) and not _CONFUSED.isdisjoint(tokens_of(field)):
                    self._exact.add(field.path)
                    self._view = None

    def _withdraw(self, key: Hashable, pattern: Pattern) -> None:
        for branch in pattern.branches:
            self._root.remove(Rule(key, branch, self._slots, branch))
