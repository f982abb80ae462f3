"""From the keys beside `when` to the core's stages: `if`, dedupe, debounce, cooldown, limit, storm, mode."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.automations.conditions import compile_if
from penstock.automations.documents import Document
from penstock.automations.models import AutomationModel, Defaults
from penstock.automations.problems import Path, Problem
from penstock.automations.scopes import condition_scope
from penstock.automations.triggering import problem_of_path
from penstock.triggers import forms


def compile_stages(
    model: AutomationModel, defaults: Defaults, vars_: Iterable[str], document: Document, path: Path
) -> tuple[forms.Stages, list[Problem]]:
    """The stages, and what is wrong with them; path: of the rule."""
    condition, problems = compile_if(model.if_, condition_scope(vars_), document, (*path, "if"))
    problems += _of_dedupe(model, document, path) + _of_debounce(model, document, path)
    storm = model.storm if "storm" in model.model_fields_set else defaults.storm
    mode = model.mode if "mode" in model.model_fields_set else defaults.mode or model.mode
    stages = forms.Stages(
        forms.Dedupe(model.dedupe.by, model.dedupe.for_) if model.dedupe else None,
        condition,
        forms.Debounce(model.debounce.quiet, model.debounce.max, model.debounce.keep) if model.debounce else None,
        _limits(model, defaults),
        mode,
        forms.Storm(storm.count, storm.per) if storm else None,
    )
    return stages, problems


def _limits(model: AutomationModel, defaults: Defaults) -> tuple[forms.Limit, ...]:
    """Both hold, where both are said; what the rule says of one of them replaces that of its file."""
    cooldown = model.cooldown if "cooldown" in model.model_fields_set else defaults.cooldown
    limit = model.limit if "limit" in model.model_fields_set else defaults.limit
    found = [forms.Limit(1, cooldown, "cooldown")] if cooldown else []
    found += [forms.Limit(limit.count, limit.per)] if limit else []
    return tuple(found)


def _of_dedupe(model: AutomationModel, document: Document, path: Path) -> list[Problem]:
    names = model.dedupe.by if model.dedupe else ()
    found = [problem_of_path(document, name, (*path, "dedupe", "by", index)) for index, name in enumerate(names)]
    return [problem for problem in found if problem]


def _of_debounce(model: AutomationModel, document: Document, path: Path) -> list[Problem]:
    debounce = model.debounce
    if debounce is None or debounce.max is None or debounce.max >= debounce.quiet:
        return []
    message = "`max` is shorter than `quiet`, so that it always comes first"
    return [document.problem((*path, "debounce", "max"), message, "write a longer `max`, or a shorter `quiet`")]
