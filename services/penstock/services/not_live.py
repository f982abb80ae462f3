"""What rule files can say and the live engine does not do yet. To be deleted when it does."""

from __future__ import annotations

from penstock.automations import Automation, Problem
from penstock.triggers import forms

_FORMS = {
    forms.Absent: "absent",
    forms.Sequence: "sequence",
    forms.AtLeast: "all, any, at_least",
    forms.Metric: "metric",
    forms.Changed: "changed",
    forms.Schedule: "schedule",
}


def not_live_yet(automation: Automation) -> Problem | None:
    """The error of a rule that uses something that only `rules check|test|simulate` know; None where all is well."""
    used = _used(automation)
    if not used:
        return None
    message = (
        f"`{automation.name}` uses {', '.join(f'`{each}`' for each in used)}, which the live engine does not do yet"
    )
    return Problem(automation.file, automation.line, 1, message, "`penstock rules simulate` shows what it would do")


def _used(automation: Automation) -> list[str]:
    rule, stages = automation.rule, automation.rule.stages
    found = [_FORMS[type(rule.trigger)]] if type(rule.trigger) in _FORMS else []
    found += ["order"] if rule.order_event_time else []
    named = {"if": stages.condition, "dedupe": stages.dedupe, "debounce": stages.debounce, "storm": stages.storm}
    found += [name for name, stage in named.items() if stage is not None]
    found += [limit.name for limit in stages.limits]
    found += ["mode"] if stages.mode != "parallel" else []
    return found + (["on_resolve"] if automation.on_resolve else [])
