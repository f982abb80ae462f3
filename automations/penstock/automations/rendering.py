"""From a step and what a firing knows to the command that carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.automations.actions import ApproveStep, EmitStep, NotifyStep, RunStep, Step
from penstock.automations.facts import AnyCommand, EmitEvent, Notify, RequestApproval, StartRun
from penstock.automations.rules import Automation
from penstock.automations.templates import Secrets, render_json
from penstock.events.errors import PenstockError
from penstock.events.event import from_mapping, refuse_reserved
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, format_instant
from penstock.triggers.keys import canonical

if TYPE_CHECKING:  # firing imports this module
    from penstock.automations.firing import Firing

HOP_BUDGET = 16  # automations in one causal chain; the event that would exceed it is dead-lettered


class HopBudgetError(PenstockError):
    """A causal chain has used up its hops: most likely rules that trigger each other in a circle."""

    def __init__(self, firing: Firing) -> None:
        super().__init__(
            f"the chain that began with {firing.correlationid!r} has passed {firing.hops} automations, the budget is"
            f" {HOP_BUDGET}: look for rules that trigger each other, {firing.automation!r} among them"
        )


def command(firing: Firing, step: Step, now: Instant, automation: Automation) -> AnyCommand:
    """The command of the firing's current step.  Raises RenderError, InvalidEventError, HopBudgetError.

    Every step leaves an event behind (of a run, a message, an approval), so every step spends a hop.
    """
    if firing.hops >= HOP_BUDGET:
        raise HopBudgetError(firing)
    variables = variables_of(firing, automation)
    match step:
        case RunStep():
            return _run(firing, step, variables)
        case NotifyStep():
            return _notify(firing, step, variables)
        case ApproveStep():
            return _approval(firing, step, now, variables)
        case EmitStep():
            return _emit(firing, step, now, variables)


def variables_of(firing: Firing, automation: Automation) -> dict[str, Any]:
    """What templates and conditions of steps see."""
    return {
        "event": firing.events[-1] if firing.events else None,
        "events": list(firing.events),
        "trigger": firing.trigger,
        "vars": automation.vars,
        "steps": _named_results(firing, automation),
        "secrets": Secrets(firing.nonce),
    }


def _named_results(firing: Firing, automation: Automation) -> dict[str, Any]:
    ids = [(str(index), step) for index, step in enumerate(automation.then)]
    for section in ("on_resolve", "on_error"):
        ids += [(f"{section}.{index}", step) for index, step in enumerate(getattr(automation, section))]
    return {step.name: firing.results[id_] for id_, step in ids if step.name and id_ in firing.results}


def command_id(firing: Firing, what: str) -> str:
    """Of a command: derived from firing and step, whatever the attempt, so that a repeat is the same.

    A firing that was re-driven asks anew: what it had asked for before has failed, and is not done again.
    """
    again = (str(firing.redrives),) if firing.redrives else ()
    return derived_id(what, firing.id, firing.cursor, *again)


def _run(firing: Firing, step: RunStep, variables: dict[str, Any]) -> StartRun:
    return StartRun(
        firing.cursor,
        command_id(firing, "run"),
        step.flow,
        render_json(step.parameters, variables),
        step.pool,
        firing.nonce,
        firing.attempt,
        firing.correlationid,
        firing.causationid,
        firing.traceparent,
        firing.hops + 1,
        step.wait,
        step.queue,
        step.priority,
    )


def _notify(firing: Firing, step: NotifyStep, variables: dict[str, Any]) -> Notify:
    retry = step.retry
    return Notify(
        firing.cursor,
        command_id(firing, "notification"),
        step.channel,
        step.text.text(variables),
        step.title.text(variables) if step.title else None,
        firing.nonce,
        retry.attempts,
        retry.delay,
        retry.backoff,
        retry.max_delay,
    )


def _approval(firing: Firing, step: ApproveStep, now: Instant, variables: dict[str, Any]) -> RequestApproval:
    ask = step.ask.text(variables)
    shown = derived_id("shown", firing.id, firing.cursor, ask, canonical(list(firing.events)))
    return RequestApproval(
        firing.cursor,
        command_id(firing, "approval"),
        ask,
        step.approvers,
        step.needs,
        step.four_eyes,
        step.timeout,
        now + step.timeout,
        step.on_timeout,
        shown,
    )


def _emit(firing: Firing, step: EmitStep, now: Instant, variables: dict[str, Any]) -> EmitEvent:
    refuse_reserved(step.type)
    event = {
        "specversion": "1.0",
        "id": command_id(firing, "event"),
        "source": step.source.text(variables)
        if step.source
        else f"/penstock/automations/{firing.namespace}/{firing.automation}",
        "type": step.type,
        "time": format_instant(now),
        "correlationid": firing.correlationid,
        "hops": firing.hops + 1,
    }
    optional = {
        "subject": (step.subject.text(variables) or None) if step.subject else None,
        "causationid": firing.causationid,
        "traceparent": firing.traceparent,
        "actor": firing.events[-1].get("actor") if firing.events else None,  # four-eyes outlives a chain of rules
        "data": render_json(step.data, variables),
    }
    event |= {name: value for name, value in optional.items() if value is not None}
    from_mapping(event).to_json()  # refuses what no door would take: an empty source, more than 1 MiB
    return EmitEvent(firing.cursor, event)
