"""A rule after loading: frozen, compiled, ready for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.automations import models
from penstock.automations.actions import Compiler, Known, Step
from penstock.automations.decision import when_digest
from penstock.automations.documents import Document
from penstock.automations.durations import format_duration
from penstock.automations.messages import salvage
from penstock.automations.models import SECOND
from penstock.automations.problems import Path, Problem
from penstock.automations.scopes import unknown_attribute
from penstock.automations.warnings import warnings
from penstock.automations.where import compile_pattern
from penstock.triggers.count import EventTrigger

DEFAULT_NAMESPACE = "default"
_LATENESS = 30 * SECOND


@dataclass(frozen=True, slots=True)
class Automation:
    """One rule.

    enabled: false: keep its windows, decide nothing.  shadow: decide and record, do not act.
    when_digest: changes exactly when what `when` means changes; windows and timers belong to it.
    vars: what `vars.NAME` says in its templates.  file, line: where it was written.
    """

    namespace: str
    name: str
    event_types: tuple[str, ...]  # `*` is any run of characters
    trigger: EventTrigger
    when_digest: str
    then: tuple[Step, ...]
    on_error: tuple[Step, ...] = ()
    vars: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    shadow: bool = False
    tests: tuple[models.TestCase, ...] = ()
    file: str = ""
    line: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """Its identity, (namespace, name)."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a rule takes from its file."""

    namespace: str = DEFAULT_NAMESPACE
    vars: Mapping[str, Any] = field(default_factory=dict)
    defaults: models.Defaults = field(default_factory=models.Defaults)


def compile_automation(
    model: models.AutomationModel, document: Document, path: Path, around: Surroundings, known: Known
) -> tuple[Automation | None, list[Problem]]:
    """The rule, or None where it cannot be used, and what is wrong with it (warnings included)."""
    compiler = Compiler(document, known, frozenset(around.vars), around.defaults.retry)
    then = compiler.steps(model.then, (*path, "then"))
    on_error = _on_error(model, compiler, path, around)
    trigger, digest, problems = _trigger(model.when, document, (*path, "when"), around.defaults)
    problems += compiler.problems
    if trigger is None or any(problem.severity == "error" for problem in problems):
        return None, problems
    problems += warnings(model, document, path)
    line, _ = document.position((*path, "name"))
    found = Automation(
        around.namespace,
        model.name,
        model.when.event,
        trigger,
        digest,
        then,
        on_error,
        around.vars,
        model.description,
        _chosen(model, around.defaults, "tags"),
        _chosen(model, around.defaults, "enabled"),
        _chosen(model, around.defaults, "shadow"),
        model.tests,
        document.file,
        line,
    )
    return found, problems


def problems_of_broken(item: Any, document: Document, path: Path, around: Surroundings, known: Known) -> list[Problem]:
    """What else is wrong with a rule whose shape is refused: its parts are looked at one by one, as far as they go."""
    if not isinstance(item, dict):
        return []
    when = salvage(models.When, item.get("when"))
    if when is not None and when.within is None and "within" in item["when"]:
        when = when.model_copy(update={"within": SECOND})  # told as malformed, so it is not missing
    problems = _trigger(when, document, (*path, "when"), around.defaults)[2] if when else []
    compiler = Compiler(document, known, frozenset(around.vars), around.defaults.retry)
    for section in ("then", "on_error"):
        steps = item.get(section)
        for index, step in enumerate(steps if isinstance(steps, list) else ()):
            action = salvage(models.Action, step)
            compiler.step(action, (*path, section, index)) if action is not None else compiler.name_only(step)
    return problems + compiler.problems


def _chosen(model: models.AutomationModel, defaults: models.Defaults, key: str) -> Any:
    """What the rule says, else what its file says, else the default of the language."""
    said = getattr(defaults, key)
    return getattr(model, key) if key in model.model_fields_set or said is None else said


def _on_error(model: models.AutomationModel, compiler: Compiler, path: Path, around: Surroundings) -> tuple[Step, ...]:
    if "on_error" in model.model_fields_set or around.defaults.on_error is None:
        return compiler.steps(model.on_error, (*path, "on_error"))
    return compiler.steps(around.defaults.on_error, ("defaults", "on_error"))


def _trigger(
    when: models.When, document: Document, path: Path, defaults: models.Defaults
) -> tuple[EventTrigger | None, str, list[Problem]]:
    problems = _check_when(when, document, path)
    pattern, strict, found = compile_pattern(document, when.event, when.where, (*path, "where"))
    problems += found
    if pattern is None or any(problem.severity == "error" for problem in problems):
        return None, "", problems
    said = "lateness" in when.model_fields_set or defaults.lateness is None
    lateness = when.lateness if said else int(defaults.lateness or 0)
    per = when.per or ()
    trigger = EventTrigger(pattern, per, when.count, when.within, lateness, when.late == "accept")
    return trigger, when_digest(_meaning(when, strict, lateness)), problems


def _check_when(when: models.When, document: Document, path: Path) -> list[Problem]:
    problems = []
    if when.count > 1 and when.within is None:
        message = f"`count: {when.count}` needs a window"
        problems.append(document.problem((*path, "count"), message, "add e.g. `within: 5m`", at="key"))
    for index, name in enumerate(when.per or ()):
        place = (*path, "per", index)  # a single path stands at `per` itself, its closest ancestor
        first = name.split(".")[0]
        if not all(name.split(".")) or "*" in name or "{" in name:
            problems.append(document.problem(place, f"`{name}` is no path", "write e.g. `subject` or `data.machine`"))
        elif (hint := unknown_attribute(first)) is not None:
            problems.append(document.problem(place, f"an event has no `{first}`", hint))
    return problems


def _meaning(when: models.When, strict: Mapping[str, Any], lateness: int) -> dict[str, Any]:
    """`when` without comments, sugar and defaults; keys of later versions leave the digest of older rules alone."""
    found: dict[str, Any] = {"event": sorted(set(when.event))}
    found |= {"where": dict(strict)} if strict else {}
    found |= {"per": list(when.per)} if when.per else {}
    if when.count > 1:
        found |= {"count": when.count, "within": format_duration(when.within or 0)}
    found |= {"lateness": format_duration(lateness)} if lateness != _LATENESS else {}
    return found | ({"late": when.late} if when.late else {})
