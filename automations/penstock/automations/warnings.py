"""What is allowed in a rule and hardly ever meant, or at risk from events that come late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.automations import models, resources
from penstock.automations.documents import Document
from penstock.automations.durations import format_duration
from penstock.automations.problems import Path, Problem
from penstock.automations.templates import Template
from penstock.automations.when import Trigger
from penstock.triggers import forms


def warnings(model: models.AutomationModel, rule: forms.Rule, document: Document, path: Path) -> list[Problem]:
    """Of one rule without errors; path: where it stands.  One of them is an error: what never resolves."""
    found = []
    for trigger, place in _triggers(model.when, (*path, "when")):
        found += [*_of_window(trigger, document, place), *_of_lateness(trigger, rule, document, place)]
    found += _of_keys(rule.trigger, document, (*path, "when"))
    if model.when.grace and not any(isinstance(each, forms.Absent) for each in forms.triggers(rule.trigger)):
        message, hint = "`grace` changes nothing without `absent`", "remove it"
        found.append(document.problem((*path, "when", "grace"), message, hint, at="key", severity="warning"))
    if model.on_resolve and not resolves(rule.trigger):
        message = "this trigger never resolves; only `metric`, and `absent` without `after`, do"
        found.append(document.problem((*path, "on_resolve"), message, "remove `on_resolve`", at="key"))
    return found


def _of_keys(trigger: forms.Trigger, document: Document, path: Path) -> list[Problem]:
    """Children whose keys can never be equal: what has no events has the key null."""
    joined = [each for each in forms.triggers(trigger) if isinstance(each, forms.Sequence) or _needs_several(each)]
    for each in joined:
        below = forms.children(each)
        keyed = any(leaf.per for child in below for leaf in forms.leaves_of(child))
        if keyed and any(isinstance(child, forms.Schedule) for child in below):
            message = "a `schedule` has the key null, so it never comes together with events that have a `per`"
            return [document.problem(path, message, "remove `per`, or the schedule", severity="warning")]
    return []


def _needs_several(trigger: forms.Trigger) -> bool:
    return isinstance(trigger, forms.AtLeast) and trigger.n == len(trigger.of) > 1


def resolves(trigger: forms.Trigger) -> bool:
    """Whether its firings are resolved one day."""
    return isinstance(trigger, forms.Metric) or (isinstance(trigger, forms.Absent) and trigger.after is None)


def _triggers(model: Trigger, path: Path) -> Iterator[tuple[Trigger, Path]]:
    """A trigger and all below it, with their places."""
    yield model, path
    for key in ("sequence", "all", "any", "of"):
        for index, child in enumerate(getattr(model, key) or ()):
            yield from _triggers(child, (*path, key, index))


def _of_window(model: Trigger, document: Document, path: Path) -> Iterator[Problem]:
    plain = model.event and model.metric is None and model.changed is None
    if plain and model.within is not None and model.count == 1:
        message, hint = "`within` changes nothing without `count`", "add e.g. `count: 3`, or remove `within`"
        yield document.problem((*path, "within"), message, hint, at="key", severity="warning")


def _of_lateness(model: Trigger, rule: forms.Rule, document: Document, path: Path) -> Iterator[Problem]:
    """What depends on the order of delivery, since a window is over before all of its events need to have come."""
    if rule.order_event_time or not rule.lateness:
        return
    late = format_duration(rule.lateness)
    if model.absent is not None:
        if (model.within or 0) <= rule.lateness and rule.grace < rule.lateness:
            within = format_duration(model.within or 0)
            message = f"events may come {late} late and are waited for {within}: false alarms"
            hint = f"add `grace: {late}` or `order: event_time`, or shorten `lateness`"
            yield document.problem((*path, "within"), message, hint, at="key", severity="warning")
    elif model.metric is not None:
        if model.metric.over < rule.lateness:
            over = format_duration(model.metric.over)
            message = f"samples may come {late} late, when the window of {over} has left them behind"
            hint = f"add `order: event_time`, or shorten `lateness` to {over}"
            yield document.problem((*path, "metric", "over"), message, hint, at="key", severity="warning")
    elif model.within is not None and model.within < rule.lateness and (model.count > 1 or not model.event):
        within = format_duration(model.within)
        message = f"events may come {late} late, the window is {within}: what fires depends on the order of delivery"
        hint = f"add `order: event_time`, or shorten `lateness` to {within}"
        yield document.problem((*path, "within"), message, hint, at="key", severity="warning")


def warnings_of_credentials(thing: Any, document: Document, path: Path) -> list[Problem]:
    """What stands beside rules: a token in clear is read by everybody who reads the file.  path: of the thing."""
    found = []
    for place, template in _credentials(thing):
        if template is not None and not template.secrets:
            message, hint = f"the {place[-1]} stands here for everybody to read", "write `{{ secrets.NAME }}`"
            found.append(document.problem((*path, *place), message, hint, severity="warning"))
    return found


def _credentials(thing: Any) -> Iterator[tuple[Path, Template | None]]:
    match thing:
        case resources.Channel():
            for kind in ("slack", "sms"):
                settings = getattr(thing, kind)
                yield (kind, "token"), settings.token if settings is not None else None
        case resources.MqttSensor():
            yield ("password",), thing.password
        case resources.Webhook():
            yield ("verify", "secret"), thing.verify.secret
