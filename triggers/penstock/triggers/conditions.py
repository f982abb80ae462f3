"""`if` behind a protocol: the core asks whether a firing passes, and knows no expression language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec

from penstock.events.instants import Instant, format_instant
from penstock.triggers.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a condition said. error: why it could not be told (it does not hold then); "" where it could."""

    holds: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """`trigger` in a condition or a template.

    key: the JSON value of `per`.  id: the decision's.  value, from_: of `metric` (the statistic) and `changed`.
    """

    automation: str
    kind: str
    key: Any
    at: Instant
    id: str
    value: Any = None
    from_: Any = None

    def to_mapping(self) -> dict[str, Any]:
        """Under the names that rule files use."""
        return {
            "automation": self.automation,
            "kind": self.kind,
            "key": self.key,
            "at": format_instant(self.at),
            "id": self.id,
            "value": self.value,
            "from": self.from_,
        }


@dataclass(frozen=True)
class Context:
    """What a condition may look at; events are decoded when they are asked for.

    evidence: of the firing, in order of event time.
    """

    trigger: Cause
    evidence: tuple[Evidence, ...]
    vars: Mapping[str, Any]

    @cached_property
    def event(self) -> dict[str, Any] | None:
        """The last of `events`, as decoded CloudEvents JSON, or None."""
        return decoded(self.evidence[-1]) if self.evidence else None

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """All events that took part."""
        return [decoded(each) for each in self.evidence]


class Condition(Protocol):
    """A compiled `if`. It never raises: what fails says so in the verdict."""

    def evaluate(self, context: Context) -> Verdict:
        """Whether the firing passes."""
        ...


def decoded(evidence: Evidence) -> dict[str, Any]:
    """The event's JSON object; of one whose body was dropped for its size, what is known of it."""
    if not evidence.body:
        known = {"specversion": "1.0", "id": evidence.id, "source": evidence.source}
        return known | {"time": format_instant(evidence.time)}
    found = msgspec.json.decode(evidence.body)
    return found if isinstance(found, dict) else {}
