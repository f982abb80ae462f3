"""Timelines: a rule file, events in order of arrival, and the complete list of decisions; see the cases' README.

The rules are compiled here in the simplest way, for the core's own tests; the real compiler is of `automations`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ruamel.yaml import YAML

from penstock.automations.durations import parse_duration
from penstock.events.instants import MILLISECOND, SECOND, Instant
from penstock.triggers import Pattern
from penstock.triggers import forms as f
from penstock.triggers.conditions import Context, Verdict
from penstock.triggers.decisions import Decision
from penstock.triggers.keys import canonical
from penstock.triggers.simulation import instant_of

SHARED = Path(__file__).parents[2].parent / "shared" / "cases" / "timelines"


@dataclass(frozen=True)
class Timeline:
    """One worked example."""

    name: str
    rules: tuple[f.Rule, ...]
    events: list[dict[str, Any]]
    until: Instant | None
    expect: list[dict[str, Any]]
    loose: frozenset[str]

    def expected(self) -> list[tuple[Any, ...]]:
        """Without `reason`, comparable with `told`."""
        return sorted(
            (
                instant_of(each["at"]) // MILLISECOND,
                each["automation"],
                each["kind"],
                canonical(each["key"]),
                () if "events" in self.loose else tuple(sorted(each["events"])),
            )
            for each in self.expect
        )

    def told(self, decisions: Iterable[Decision]) -> list[tuple[Any, ...]]:
        """Decisions as the timeline compares them."""
        return sorted(
            (
                each.at // MILLISECOND,
                each.automation,
                each.kind,
                each.key,
                () if "events" in self.loose else tuple(sorted(each.events)),
            )
            for each in decisions
        )


def timeline(path: Path) -> Timeline:
    """Read one file."""
    found = YAML(typ="safe", pure=True).load(path.read_text())
    rules = tuple(rule_of(each) for each in found["rules"]["automations"])
    until = instant_of(found["until"]) if found.get("until") else None
    return Timeline(path.stem, rules, found["events"], until, found["expect"], frozenset(found.get("loose", ())))


def rule_of(automation: Mapping[str, Any]) -> f.Rule:
    """An automation, as `f.Rule`."""
    when = automation["when"]
    stages = f.Stages(
        dedupe=_dedupe(automation.get("dedupe")),
        condition=Sentence(automation["if"]) if "if" in automation else None,
        debounce=_debounce(automation.get("debounce")),
        limits=_limits(automation),
        mode=automation.get("mode", "parallel"),
    )
    return f.Rule(
        "default",
        automation["name"],
        "digest",
        trigger_of(when, ()),
        stages,
        automation.get("enabled", True),
        when.get("order") == "event_time",
        span(when["lateness"]) if "lateness" in when else f.LATENESS,
        when.get("late") == "accept",
        span(when.get("grace", "0s")),
    )


def trigger_of(when: Mapping[str, Any], per: f.Per) -> f.Trigger:
    """One trigger and all below it.  per: of the composite around it."""
    per = _paths(when["per"]) if "per" in when else per
    within = span(when["within"]) if "within" in when else None
    if "metric" in when:
        return _metric(when, per)
    if "changed" in when:
        from_, to = when.get("from", f.UNSET), when.get("to", f.UNSET)
        return f.Changed(leaf(when, per), when["changed"], from_, to, span(when.get("for", "0s")))
    if "event" in when:
        return f.Count(leaf(when, per), when.get("count", 1), within)
    if "absent" in when:
        after = leaf(when["after"], per) if "after" in when else None
        return f.Absent(leaf(when["absent"], per), within or 0, after)
    if "schedule" in when:
        return _schedule(when["schedule"])
    if "sequence" in when:
        return f.Sequence(tuple(trigger_of(each, per) for each in when["sequence"]), within)
    below = tuple(trigger_of(each, per) for each in when.get("all") or when.get("any") or when["of"])
    number = len(below) if "all" in when else 1 if "any" in when else when["at_least"]
    return f.AtLeast(number, below, within)


def leaf(when: Mapping[str, Any], per: f.Per) -> f.Leaf:
    """`event`, `where` and `per` of one place."""
    types = when.get("event", "*")
    names = [types] if isinstance(types, str) else types
    pattern: dict[str, Any] = {"type": [{"wildcard": each} if "*" in each else each for each in names]}
    return f.Leaf(Pattern(pattern | _strict(when.get("where", {}))), _paths(when["per"]) if "per" in when else per)


class Sentence:
    """A condition good enough for the tests: CEL's operators on the event's fields."""

    def __init__(self, source: str) -> None:
        words = {"&&": " and ", "||": " or ", "true": "True", "false": "False"}
        self.source = re.sub(r"&&|\|\||\btrue\b|\bfalse\b", lambda found: words[found[0]], source)

    def evaluate(self, context: Context) -> Verdict:
        """Python's eval over attributes."""
        try:
            held = eval(self.source, {}, {"event": _attributes(context.event)})
        except AttributeError as error:
            return Verdict(False, str(error))
        return Verdict(held is True)


def span(text: Any) -> int:
    """A duration."""
    return parse_duration(text)


def _metric(when: Mapping[str, Any], per: f.Per) -> f.Metric:
    said = when["metric"]
    return f.Metric(
        leaf(when, per),
        said["value"],
        span(said["over"]),
        said["stat"],
        said["op"],
        said["threshold"],
        span(said.get("for", "0s")),
        said.get("clear"),
    )


def _schedule(said: Mapping[str, Any]) -> f.Schedule:
    found = re.fullmatch(r"\*/(\d+) \* \* \* \*", said.get("cron", ""))
    every = int(found[1]) * 60 * SECOND if found else span(said["every"])
    return f.Schedule(lambda instant: (instant // every + 1) * every)


def _dedupe(said: Mapping[str, Any] | None) -> f.Dedupe | None:
    return f.Dedupe(_paths(said["by"]), span(said["for"])) if said else None


def _debounce(said: Any) -> f.Debounce | None:
    if said is None:
        return None
    if isinstance(said, str):
        return f.Debounce(span(said))
    return f.Debounce(span(said["quiet"]), span(said["max"]) if "max" in said else None, said.get("keep", "last"))


def _limits(automation: Mapping[str, Any]) -> tuple[f.Limit, ...]:
    found: list[f.Limit] = []
    if "cooldown" in automation:
        found.append(f.Limit(1, span(automation["cooldown"]), "cooldown"))
    if "limit" in automation:
        number, _, over = automation["limit"].partition("/")
        found.append(f.Limit(int(number), span(over)))
    return tuple(found)


def _paths(per: Any) -> f.Per:
    return (per,) if isinstance(per, str) else tuple(per)


def _strict(where: Any) -> Any:
    if isinstance(where, dict):
        return {key: _strict(value) if isinstance(value, dict) else _listed(value) for key, value in where.items()}
    return where


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _attributes(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _attributes(inner) for name, inner in value.items()})
    return value
