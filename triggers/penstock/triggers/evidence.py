"""What the state machines read and what they say: an event as evidence, and a decision with the evidence behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from penstock.events.instants import Instant


class Evidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event that matched: its identity, its event time, and its JSON ("" where it was too large to keep)."""

    time: Instant
    source: str
    id: str
    body: bytes = b""

    @property
    def key(self) -> tuple[str, str]:
        """The event's identity."""
        return self.source, self.id

    def without_body(self) -> Evidence:
        """The same, without its JSON."""
        return Evidence(self.time, self.source, self.id)


@dataclass(frozen=True, slots=True)
class Decided:
    """A trigger fired or resolved: when, on what evidence (in order of event time)."""

    kind: Literal["fired", "resolved"]
    at: Instant
    evidence: tuple[Evidence, ...]
    due: Instant | None = None  # the deadline, where a timer decided
    reason: str = ""
