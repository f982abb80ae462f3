"""What the core says about a key: a rule fired, resolved, or would have fired and was suppressed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.events.instants import Instant, format_instant
from penstock.triggers.conditions import Cause
from penstock.triggers.evidence import Evidence
from penstock.triggers.forms import Rule
from penstock.triggers.identity import decision_id

Kind: TypeAlias = Literal["fired", "resolved", "suppressed"]


@dataclass(frozen=True)
class Decision:
    """One decision, on what evidence (in order of event time).

    at: the clock at the decision.  key: canonical JSON text, as `key_of` gives it.
    due: the deadline or due time, where a timer decided.  reason: of a suppressed one, beginning with the stage's name.
    value, from_: what `trigger.value` and `trigger.from` say of `metric` and `changed`.
    """

    namespace: str
    automation: str
    when_digest: str
    kind: Kind
    key: str
    at: Instant
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    due: Instant | None = None
    value: Any = None
    from_: Any = None

    @cached_property
    def id(self) -> str:
        """Its identity: the same cause gives the same one for ever."""
        cause = (each.key for each in self.evidence)
        return decision_id(self.namespace, self.automation, self.when_digest, self.kind, self.key, self.due, cause)

    @property
    def events(self) -> list[str]:
        """The ids of the events that took part."""
        return [each.id for each in self.evidence]

    @property
    def key_value(self) -> Any:
        """The key as a JSON value: null without `per`, a list for several paths."""
        return msgspec.json.decode(self.key)

    @property
    def cause(self) -> Cause:
        """`trigger`, as conditions and templates see it."""
        return Cause(self.automation, self.kind, self.key_value, self.at, self.id, self.value, self.from_)

    def to_mapping(self) -> dict[str, Any]:
        """The JSON object that `penstock rules simulate` prints."""
        return {
            "at": format_instant(self.at),
            "automation": self.automation,
            "kind": self.kind,
            "key": self.key_value,
            "events": self.events,
            "reason": self.reason,
        }


def decision(
    rule: Rule,
    key: str,
    kind: Kind,
    at: Instant,
    evidence: tuple[Evidence, ...],
    *,
    due: Instant | None = None,
    reason: str = "",
    value: Any = None,
    from_: Any = None,
) -> Decision:
    """A decision of a rule."""
    return Decision(rule.namespace, rule.name, rule.when_digest, kind, key, at, evidence, reason, due, value, from_)
