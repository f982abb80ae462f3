"""Which names a template may use, depending on where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from penstock.automations.problems import did_you_mean

ATTRIBUTES = (
    "id", "source", "type", "subject", "time", "data", "specversion", "datacontenttype", "dataschema", "partitionkey",
    "correlationid", "causationid", "traceparent", "hops",
)  # fmt: skip
EXTENSIONS = (
    "tracestate", "dataref", "sequence", "sequencetype", "sampledrate", "expirytime", "recordedtime", "severitytext",
    "severitynumber",
)  # fmt: skip
TRIGGER = ("automation", "kind", "key", "at", "id", "value", "from")
_EXTENSION = re.compile(r"[a-z0-9]{1,64}\Z")

Allowed: TypeAlias = frozenset[str] | None  # the names a variable has; None: any


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables that a template at one place of a file may name."""

    variables: Mapping[str, Allowed]
    place: str = "here"  # for messages: "in `emit`"

    def without(self, name: str, place: str) -> Scope:
        """The same scope with one variable less."""
        return Scope({known: allowed for known, allowed in self.variables.items() if known != name}, place)


def action_scope(vars_: Iterable[str], steps: Iterable[str]) -> Scope:
    """What templates of actions may name; `steps`: the earlier steps that have a name."""
    return Scope(
        {
            "event": None, "events": None, "trigger": frozenset(TRIGGER), "vars": frozenset(vars_),
            "steps": frozenset(steps), "secrets": None,
        }
    )  # fmt: skip


def condition_scope(vars_: Iterable[str], steps: Iterable[str] | None = None) -> Scope:
    """What `if` may name; `steps`: at a step, the earlier ones that have a name; None: in the `if` of a rule."""
    found: dict[str, Allowed] = {"event": None, "events": None, "trigger": frozenset(TRIGGER), "vars": frozenset(vars_)}
    return Scope(found if steps is None else {**found, "steps": frozenset(steps)})


WEBHOOK_SCOPE = Scope({"body": None, "headers": None}, "in the `event` of a webhook")
SENSOR_SCOPE = Scope({"body": None, "topic": None}, "in the `event` of a sensor")
SECRETS_SCOPE = Scope({"secrets": None}, "in settings")


def is_known_attribute(name: str) -> bool:
    """Whether CloudEvents, a known extension or Penstock itself defines this attribute."""
    return name in ATTRIBUTES or name in EXTENSIONS or name == "actor"


def unknown_attribute(name: str) -> str | None:
    """None where an event may have this attribute; else a hint.

    An extension may have any name in lower case that is not nearly that of a standard attribute.
    """
    if name in ATTRIBUTES or name in EXTENSIONS:
        return None
    hint = did_you_mean(name, ATTRIBUTES)
    if not _EXTENSION.match(name):
        return hint if hint.startswith("did") else f"content of an event stands under `data`: `data.{name}`"
    return hint if hint.startswith("did") else None
