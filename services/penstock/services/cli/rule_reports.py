"""What `penstock rules test|simulate|explain` read and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from penstock.automations import Automation, ExampleOutcome, parse_duration, pipeline
from penstock.automations.problems import did_you_mean
from penstock.events.errors import InvalidEventError
from penstock.events.event import from_mapping
from penstock.events.instants import Instant
from penstock.services.cli.client import CommandError
from penstock.services.cli.output import plain, print_table
from penstock.triggers.decisions import Decision
from penstock.triggers.simulation import instant_of

_TOLD = 20  # bad lines of a file of events


def time(text: str, option: str) -> Instant:
    """An RFC 3339 time.  Raises CommandError."""
    try:
        return instant_of(text)
    except ValueError:
        raise CommandError(f"{option}: {text!r} is no time; write e.g. 2026-03-01T10:00:00Z") from None


def span(text: str, option: str) -> int:
    """A duration in microseconds.  Raises CommandError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file, each checked.  Raises CommandError with the numbers of the lines that are none."""
    try:
        lines = (sys.stdin.buffer if str(path) == "-" else path.open("rb")).read().split(b"\n")
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    events, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(_event(line))
        except (ValueError, InvalidEventError) as error:
            bad.append(f"{path}:{number}: {plain(str(error))}")
    if bad:
        more = f"\n… and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
        raise CommandError("these lines are no events:\n" + "\n".join(bad[:_TOLD]) + more)
    return events


def _event(line: bytes) -> dict[str, Any]:
    """Raises ValueError, InvalidEventError."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if isinstance(found, dict):
        found = {"specversion": "1.0", **found}
        if isinstance(found.get("recordedtime"), str):
            instant_of(found["recordedtime"])
    from_mapping(found)
    mapping: dict[str, Any] = found
    return mapping


def print_decisions(decisions: Iterable[Decision], *, as_table: bool) -> None:
    """One JSON object a line, as they come, or a table."""
    if not as_table:
        for each in decisions:
            print(json.dumps(each.to_mapping(), ensure_ascii=False))
        return
    columns = ("at", "automation", "kind", "key", "events", "reason")
    rows = [{**row, "at": f"{row['at']} "} for row in (each.to_mapping() for each in decisions)]  # whole, not cut
    print_table(rows, columns, empty="nothing was decided")


def print_outcomes(outcomes: Sequence[ExampleOutcome]) -> None:
    """What failed, with the difference, and how many passed."""
    for each in outcomes:
        if each.passed:
            continue
        rule = each.automation
        print(plain(f"{rule.file}:{rule.line}: {rule.name}: {each.name}: failed (- expected, + got)"))
        for line in each.lines:
            print(plain(f"  {line}"))
    failed = sum(not each.passed for each in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed" if outcomes else "no rule has tests")


def print_pipelines(found: Sequence[Automation], name: str, known: Sequence[Automation], *, as_json: bool) -> None:
    """Of each rule of that name (one a namespace).  Raises CommandError where there is none."""
    if not found:
        hint = did_you_mean(name, (rule.name for rule in known))
        raise CommandError(f"there is no rule {name!r}" + (f" ({hint})" if hint else ""))
    if as_json:
        told = [{"automation": rule.name, "namespace": rule.namespace, "stages": _stages(rule)} for rule in found]
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for rule in found:
        print(plain(f"{rule.name} ({rule.file}:{rule.line})" + (f": {rule.description}" if rule.description else "")))
        for stage in pipeline(rule):
            print(plain(f"  {stage.name:<10} {stage.effect:<7} {stage.text}"))


def _stages(rule: Automation) -> list[dict[str, str]]:
    return [{"stage": stage.name, "effect": stage.effect, "text": stage.text} for stage in pipeline(rule)]
