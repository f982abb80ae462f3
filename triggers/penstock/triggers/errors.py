"""Errors of the trigger core.

PenstockError
└── PatternError  (also a ValueError) a pattern is refused; it says where and why
"""

from __future__ import annotations

from penstock.events.errors import PenstockError


class PatternError(ValueError, PenstockError):
    """A pattern is refused.

    path: where in the pattern, keys joined by dots ("" for the whole).  reason: what is wrong and what would be right.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}" if path else reason)

    def __reduce__(self) -> tuple[type[PatternError], tuple[str, str]]:
        return type(self), (self.path, self.reason)
