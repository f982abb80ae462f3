"""Worked examples of rules over time: a rule file, the events in order of arrival, and every decision expected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from penstock.automations import RuleSet, load_texts
from penstock.events.instants import format_instant
from penstock.triggers import simulate
from penstock.triggers.simulation import instant_of

OWN = Path(__file__).parents[1] / "unit/automations/timelines"
SHARED = Path(__file__).parents[3] / "shared/cases/timelines"  # a clone has none


@dataclass(frozen=True)
class Timeline:
    """One of them.  loose: the fields that are not compared."""

    name: str
    rules: str
    events: list[dict[str, Any]]
    until: str | None
    expect: list[dict[str, Any]]
    loose: frozenset[str]

    def loaded(self) -> RuleSet:
        return load_texts({f"{self.name}.yaml": self.rules}).require()

    def simulated(self) -> list[dict[str, Any]]:
        """The decisions of the library, as JSON."""
        until = instant_of(self.until) if self.until else None
        return [each.to_mapping() for each in simulate(self.loaded(), self.events, until)]

    def differences(self, got: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
        """What is missing and what is too much, both empty where all is well."""
        expected, found = Counter(map(self._plain, self.expect)), Counter(map(self._plain, got))
        return sorted((expected - found).elements()), sorted((found - expected).elements())

    def _plain(self, decision: Mapping[str, Any]) -> str:
        fields = {name: value for name, value in decision.items() if name not in self.loose and name != "reason"}
        fields["at"] = format_instant(instant_of(fields["at"]) // 1_000 * 1_000)
        if "events" in fields:
            fields["events"] = sorted(set(fields["events"]))
        return json.dumps(fields, sort_keys=True)


def read_timeline(path: Path) -> Timeline:
    """One of a file.  What is expected without `key` or `events` is null, or none."""
    found = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    expect = [{"key": None, "events": [], **each} for each in found["expect"]]
    rules = json.dumps(found["rules"])  # JSON is YAML
    return Timeline(path.stem, rules, found["events"], found.get("until"), expect, frozenset(found.get("loose", ())))


def timelines(folder: Path) -> list[Path]:
    """The files of a folder; none where it is not there."""
    return sorted(folder.glob("*.yaml"))
