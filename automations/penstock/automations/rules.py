"""A rule after loading: frozen, compiled, ready for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.automations import models
from penstock.automations.actions import Compiler, Known, Step
from penstock.automations.conditions import CelCondition, compile_if
from penstock.automations.decision import when_digest
from penstock.automations.documents import Document
from penstock.automations.durations import format_duration
from penstock.automations.event_schemas import problems_of_fields
from penstock.automations.flow_control import compile_stages
from penstock.automations.messages import salvage, validate
from penstock.automations.problems import Path, Problem
from penstock.automations.scopes import condition_scope
from penstock.automations.triggering import Compiled, TriggerCompiler
from penstock.automations.warnings import warnings
from penstock.triggers import forms

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Automation:
    """One rule.

    enabled: false: keep its windows, decide nothing.  shadow: decide and record, do not act.
    rule: what the core makes of it.  vars: what `vars.NAME` says in its templates.  file, line: where it was written.
    """

    namespace: str
    name: str
    event_types: tuple[str, ...]  # `*` is any run of characters
    rule: forms.Rule = field(compare=False)
    then: tuple[Step, ...]
    on_resolve: tuple[Step, ...] = ()
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

    @property
    def when_digest(self) -> str:
        """Changes exactly when what `when` means changes; windows and timers belong to it."""
        return self.rule.when_digest


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
    names, compiler.names = compiler.names, set()  # a resolve is a firing of its own, without the results of the first
    on_resolve = compiler.steps(model.on_resolve, (*path, "on_resolve"))
    compiler.names |= names
    on_error = _on_error(model, compiler, path, around)
    triggers = TriggerCompiler(document, f"{around.namespace}/{model.name}")
    trigger = triggers.compile(model.when, (*path, "when"))
    stages, problems = compile_stages(model, around.defaults, around.vars, document, path)
    problems = [*triggers.problems, *problems, *compiler.problems]
    if isinstance(stages.condition, CelCondition):
        problems += problems_of_fields(stages.condition, trigger.types, known.schemas, document, (*path, "if"))
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    line, _ = document.position((*path, "name"))
    found = Automation(
        around.namespace,
        model.name,
        trigger.types,
        _rule(model, trigger, stages, around),
        then,
        on_resolve,
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
    problems += warnings(model, found.rule, document, path)
    return (found if not any(each.severity == "error" for each in problems) else None), problems


def problems_of_broken(item: Any, document: Document, path: Path, around: Surroundings, known: Known) -> list[Problem]:
    """What else is wrong with a rule whose shape is refused: its parts are looked at one by one, as far as they go."""
    if not isinstance(item, dict):
        return []
    problems = _problems_of_when(item.get("when"), document, (*path, "when"))
    if isinstance(said := item.get("if"), str):
        problems += compile_if(said, condition_scope(around.vars), document, (*path, "if"))[1]
    compiler = Compiler(document, known, frozenset(around.vars), around.defaults.retry)
    for section in ("then", "on_resolve", "on_error"):
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


def _rule(model: models.AutomationModel, found: Compiled, stages: forms.Stages, around: Surroundings) -> forms.Rule:
    when, defaults = model.when, around.defaults
    lateness = int(_of_when(when, defaults, "lateness"))
    waits = any(isinstance(each, forms.Absent) for each in forms.triggers(found.trigger))
    grace = int(_of_when(when, defaults, "grace")) if waits else 0
    ordered = _of_when(when, defaults, "order") == "event_time"
    meaning = dict(found.meaning)
    meaning |= {"lateness": format_duration(lateness)} if lateness != forms.LATENESS else {}
    meaning |= {"late": when.late} if when.late else {}
    meaning |= {"grace": format_duration(grace)} if grace else {}
    meaning |= {"order": "event_time"} if ordered else {}
    return forms.Rule(
        around.namespace,
        model.name,
        when_digest(meaning),
        found.trigger,
        stages,
        bool(_chosen(model, defaults, "enabled")),
        ordered,
        lateness,
        when.late == "accept",
        grace,
        around.vars,
    )


def _of_when(when: models.When, defaults: models.Defaults, key: str) -> Any:
    """What `when` says, else what its file says, else the default of the language."""
    said = getattr(defaults, key)
    return getattr(when, key) if key in when.model_fields_set or said is None else said


def _problems_of_when(item: Any, document: Document, path: Path) -> list[Problem]:
    """Of a `when` whose shape may be refused: what its parts have wrong all the same, but nothing that is missing
    because it was refused."""
    when = salvage(models.When, item)
    if when is None:
        return []
    compiler = TriggerCompiler(document, "")
    compiler.compile(when, path)
    whole = not validate(models.When, item, document, path)[1]
    return [each for each in compiler.problems if whole or not _tells_of_lack(each)]


def _tells_of_lack(problem: Problem) -> bool:
    return any(words in problem.message for words in (" needs ", " is missing in ", " can never be", " has none of "))
