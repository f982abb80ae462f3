"""What the state machines read: an event as evidence."""

from __future__ import annotations

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
