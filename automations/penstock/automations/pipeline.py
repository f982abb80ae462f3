"""A rule's pipeline in words: each stage, whether it drops, delays or merges, and with which values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.automations.actions import ApproveStep, EmitStep, NotifyStep, RunStep, Step
from penstock.automations.conditions import CelCondition
from penstock.automations.durations import format_duration
from penstock.automations.rules import Automation
from penstock.triggers import forms
from penstock.triggers.keys import canonical

_MODES = {
    "parallel": ("passes", "each firing acts at once, beside earlier ones"),
    "single": ("drops", "a firing while an earlier one of its key has not ended is dropped"),
    "queued": ("delays", "firings of a key act one after the other"),
    "restart": ("drops", "a new firing ends an earlier one of its key"),
    "keep_latest": ("merges", "while one of its key has not ended, only the newest firing waits"),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.  effect: passes, drops, delays or merges."""

    name: str
    effect: str
    text: str


def pipeline(automation: Automation) -> list[Stage]:
    """All stages in their order; those that the rule does not use say so."""
    rule, stages = automation.rule, automation.rule.stages
    found = [Stage("filter", "drops", _filter(automation)), _dedupe(stages.dedupe), _correlate(rule), _window(rule)]
    condition = stages.condition
    shown = f"holds only if {condition.source}" if isinstance(condition, CelCondition) else "no condition"
    found.append(Stage("if", "drops" if condition else "passes", shown))
    found += [_debounce(stages.debounce), _throttle(stages), Stage("mode", *_MODES[stages.mode])]
    return [*found, Stage("act", *_act(automation))]


def _filter(automation: Automation) -> str:
    if not automation.event_types:
        return "looks at no event"
    types = " or ".join(f"`{each}`" for each in dict.fromkeys(automation.event_types))
    fields = {field.path for leaf in forms.leaves(automation.rule) for each in leaf.pattern.branches for field in each}
    return f"looks only at events of type {types}" + (" that match `where`" if fields - {"type"} else "")


def _dedupe(dedupe: forms.Dedupe | None) -> Stage:
    if dedupe is None:
        return Stage("dedupe", "drops", "only events that came before, by source and id")
    by = " and ".join(f"`{path}`" for path in dedupe.by)
    return Stage("dedupe", "drops", f"an event like one let through less than {_span(dedupe.for_)} before, by {by}")


def _correlate(rule: forms.Rule) -> Stage:
    pers = dict.fromkeys(", ".join(f"`{path}`" for path in leaf.per) for leaf in forms.leaves(rule) if leaf.per)
    text = f"a state of its own for each value of {' or '.join(pers)}" if pers else "one state for all events"
    return Stage("correlate", "passes", text)


def _window(rule: forms.Rule) -> Stage:
    effect = "passes" if rule.plain and not rule.order_event_time else "delays" if rule.order_event_time else "merges"
    text = f"fires {_fires(rule.trigger)}"
    if not rule.plain or rule.order_event_time:
        late = "still fill windows that hold their time" if rule.accept_late else "are dropped and told"
        text += f"; events more than {_span(rule.lateness)} late {late}"
    text += f"; held back for {_span(rule.lateness)} and taken in order of event time" if rule.order_event_time else ""
    text += f"; waits {_span(rule.grace)} longer for what comes late" if rule.grace else ""
    return Stage("window", effect, text if rule.enabled else f"{text}; disabled: keeps its state, decides nothing")


def _fires(trigger: forms.Trigger) -> str:
    match trigger:
        case forms.Count(count=1):
            return "at each event"
        case forms.Count():
            return f"at {trigger.count} events within {_span(trigger.within)}, then starts anew"
        case forms.Absent(after=None):
            return f"when none came for {_span(trigger.within)}, once per silence"
        case forms.Absent():
            return f"when none came within {_span(trigger.within)} of each event that `after` names"
        case forms.Sequence():
            steps = ", then ".join(f"({_fires(step)})" for step in trigger.steps)
            return f"when these fired in order{_inside(trigger.within)}: {steps}"
        case forms.AtLeast():
            parts = ", ".join(f"({_fires(each)})" for each in trigger.of)
            return f"when {trigger.n} of {len(trigger.of)} fired{_inside(trigger.within)}: {parts}"
        case forms.Metric():
            return _metric(trigger)
        case forms.Changed():
            return _changed(trigger)
    return "at each due time of its schedule"


def _metric(metric: forms.Metric) -> str:
    held = f" for {_span(metric.for_)}" if metric.for_ else ""
    clear = f"strictly past {metric.clear}" if metric.clear is not None else "once that holds no more"
    what = f"{metric.stat} of `{metric.value}` over {_span(metric.over)} is {metric.op} {metric.threshold}"
    return f"when the {what}{held}; resolves {clear}"


def _changed(changed: forms.Changed) -> str:
    ends = "" if changed.from_ is forms.UNSET else f" from {canonical(changed.from_)}"
    ends += "" if changed.to is forms.UNSET else f" to {canonical(changed.to)}"
    return f"when `{changed.path}` changes{ends}" + (f" and stays so for {_span(changed.for_)}" if changed.for_ else "")


def _debounce(debounce: forms.Debounce | None) -> Stage:
    if debounce is None:
        return Stage("debounce", "passes", "no debounce")
    most = f", {_span(debounce.max_)} after the first at the latest" if debounce.max_ is not None else ""
    text = f"lets one firing through once {_span(debounce.quiet)} passed without another of its key{most}"
    return Stage("debounce", "merges", f"{text}; it has the events of all and the values of the {debounce.keep}")


def _throttle(stages: forms.Stages) -> Stage:
    parts = [
        f"after a firing of a key, none for {_span(limit.span)}"
        if limit.name == "cooldown"
        else f"at most {limit.n} firings of a key in any {_span(limit.span)}"
        for limit in stages.limits
    ]
    if stages.storm is not None:
        parts.append(f"more than {stages.storm.n} firings in {_span(stages.storm.span)} become one digest (live only)")
    return Stage("throttle", "drops" if parts else "passes", "; ".join(parts) or "no cooldown and no limit")


def _act(automation: Automation) -> tuple[str, str]:
    steps = " → ".join(_steps(automation.then))
    text = f"would do {steps}, but only records it (shadow)" if automation.shadow else f"does {steps}"
    for name, section in (("when it resolves", automation.on_resolve), ("when a step failed", automation.on_error)):
        text += f"; {name}: {' → '.join(_steps(section))}" if section else ""
    return ("drops" if automation.shadow else "passes"), text


def _steps(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        match step:
            case RunStep():
                text = f"run {step.flow}"
            case NotifyStep():
                text = f"notify {step.channel}"
            case ApproveStep():
                text = f"approve by {', '.join(step.approvers)} within {_span(step.timeout)}"
            case EmitStep():
                text = f"emit {step.type}"
        yield f"{text} (if {step.condition.source})" if step.condition else text


def _inside(within: int | None) -> str:
    return "" if within is None else f" within {_span(within)}"


def _span(span: int | None) -> str:
    return format_duration(span or 0)
