"""Many patterns at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from penstock.triggers.decoding import decode
from penstock.triggers.pattern import Pattern


class Matcher:
    """Finds which of many patterns an event matches."""

    def __init__(self) -> None:
        self._patterns: dict[Hashable, Pattern] = {}

    def __len__(self) -> int:
        return len(self._patterns)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._patterns

    def add(self, key: Hashable, pattern: Pattern) -> None:
        """Look for a pattern under a key; a key that is there already gets the new pattern."""
        self._patterns[key] = pattern

    def remove(self, key: Hashable) -> None:
        """Forget a key.  Raises KeyError if it is not there."""
        del self._patterns[key]

    def match(self, event: Mapping[str, Any]) -> set[Hashable]:
        """The keys of all patterns that an event matches.  Never raises."""
        return {key for key, pattern in self._patterns.copy().items() if pattern.matches(event)}

    def match_json(self, body: bytes) -> set[Hashable]:
        """The same for an event as JSON."""
        return self.match(decode(body))
