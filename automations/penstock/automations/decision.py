"""The identity of a decision, which the core derives from its cause, and of a `when`."""

from __future__ import annotations

from typing import Any

from penstock.events.ids import derived_id
from penstock.triggers.identity import decision_id
from penstock.triggers.keys import canonical

__all__ = ["decision_id", "when_digest"]


def when_digest(when: dict[str, Any]) -> str:
    """Of a `when` in its compiled form: comments, order of keys, `300s` for `5m`, defaults spelt out change nothing."""
    return derived_id("when", canonical(when))
