"""A firing: a decision on its way through the steps of its rule, across hours and crashes.

`advance(firing, fact, now, automation) -> (firing, commands)` is pure. A fact that is repeated, or that belongs to a
step which is not the current one, changes nothing; commands carry derived ids, so that a repeated one is the same.

    running ──► waiting ──► running ──► completed
       │           ├──► rejected            an approval was refused, or its time ran out
       └───────────┴──► failed              a step failed, and `on_error` ran to its end
                   └──► dead_lettered       a step failed, and nothing was left to do about it
                             └──► running   somebody has it re-driven, from that step on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.automations.actions import ApproveStep, NotifyStep, RunStep, Step
from penstock.automations.facts import (
    AnyCommand,
    AnyFact,
    ApprovalDecided,
    DeadLetter,
    EmitEvent,
    Finished,
    Redriven,
    RunEnded,
    SetTimer,
    Started,
    Status,
    StepFailed,
    StepSucceeded,
    TimerDue,
)
from penstock.automations.rendering import HopBudgetError, command, command_id, variables_of
from penstock.automations.rules import Automation
from penstock.automations.templates import RenderError
from penstock.events.errors import InvalidEventError
from penstock.events.instants import Instant, format_instant

FORMAT = 1
FINAL: frozenset[Status] = frozenset({"completed", "failed", "rejected", "dead_lettered", "cancelled"})
_ON_ERROR = "on_error."
_ON_RESOLVE = "on_resolve."


class Firing(msgspec.Struct, frozen=True):
    """One firing. Its id is the id of the decision.

    cursor: the step in hand ("0", "on_resolve.0", "on_error.1"); "" before the start.
    results: by step id.  nonce: marks the placeholders of secrets.  attempt: of the step in hand, from 1.
    retry_at: when it is tried again; deadline: when it counts as failed.  redrives: how often it was begun again.
    """

    id: str
    namespace: str
    automation: str
    revision: int
    events: tuple[dict[str, Any], ...]
    trigger: dict[str, Any]
    nonce: str
    correlationid: str
    causationid: str | None = None
    traceparent: str | None = None
    hops: int = 0
    cursor: str = ""
    status: Status = "running"
    attempt: int = 1
    retry_at: Instant | None = None
    deadline: Instant | None = None
    results: dict[str, Any] = {}  # msgspec copies an empty mapping for each instance
    redrives: int = 0
    v: int = FORMAT

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in FINAL

    def to_json(self) -> bytes:
        """The stored form."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, body: bytes | str) -> Firing:
        """From the stored form, of this format version or the one before."""
        return msgspec.json.decode(body, type=cls)


def start(
    automation: Automation,
    *,
    decision_id: str,
    revision: int,
    events: Sequence[Mapping[str, Any]],
    key: Any,
    at: Instant,
    nonce: str,
    kind: str = "fired",
    value: Any = None,
    previous: Any = None,
) -> Firing:
    """A firing before its first step; `advance` it with Started.

    events: all that took part, as CloudEvents JSON objects, in order of event time.  key: the JSON value of `per`.
    at: the instant of the decision.  nonce: random.  value, previous: `trigger.value`, `trigger.from`.
    """
    last: Mapping[str, Any] = events[-1] if events else {}
    trigger = {
        "automation": automation.name, "kind": kind, "key": key, "at": format_instant(at), "id": decision_id,
        "value": value, "from": previous,
    }  # fmt: skip
    return Firing(
        decision_id,
        automation.namespace,
        automation.name,
        revision,
        tuple(dict(event) for event in events),
        trigger,
        nonce,
        str(last.get("correlationid") or last.get("id") or decision_id),
        last.get("id"),
        last.get("traceparent"),
        max((int(event.get("hops") or 0) for event in events), default=0),
    )


def advance(firing: Firing, fact: AnyFact, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    """What follows from a fact.  automation: the rule as of the firing's revision."""
    if isinstance(fact, Redriven):
        return _redriven(firing, fact, now, automation)
    if firing.ended:
        return firing, []
    if isinstance(fact, Started):
        first = f"{_ON_RESOLVE}0" if firing.trigger.get("kind") == "resolved" else "0"
        return _go(firing, first, now, automation) if firing.cursor == "" else (firing, [])
    if fact.step != firing.cursor:
        return firing, []
    return _of_current(firing, fact, now, automation)


def _redriven(firing: Firing, fact: Redriven, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    """The failed step once more; those before it have their results and are not repeated."""
    if firing.status != "dead_lettered" or fact.redrives != firing.redrives:
        return firing, []
    results = {step: result for step, result in firing.results.items() if step != firing.cursor}
    again = msgspec.structs.replace(firing, results=results, redrives=firing.redrives + 1)
    return _go(again, firing.cursor, now, automation)


def _of_current(firing: Firing, fact: AnyFact, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    if isinstance(fact, RunEnded) and fact.run_id not in ("", command_id(firing, "run")):
        return firing, []  # of a run that was launched before the firing was re-driven
    match fact, _step_at(automation, firing.cursor):
        case StepSucceeded(), RunStep(wait=True):
            return msgspec.structs.replace(firing, status="waiting", retry_at=None), []
        case StepSucceeded(), RunStep() | NotifyStep():
            return _done(firing, fact.result, now, automation)
        case StepFailed(), RunStep() | NotifyStep() as step:
            return _refused(firing, fact, step, now, automation)
        case RunEnded(state="completed"), RunStep(wait=True):
            result = {"run_id": command_id(firing, "run"), "state": fact.state, "result": fact.result}
            return _done(firing, result, now, automation)
        case RunEnded(), RunStep(wait=True):
            return _failed(firing, f"the run ended as {fact.state}", now, automation)
        case ApprovalDecided(), ApproveStep():
            return _decided(firing, fact, now, automation)
        case TimerDue(), RunStep() | NotifyStep() as step:
            return _timer(firing, step, now, automation)
    return firing, []


def _go(firing: Firing, step_id: str, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    """Begin a step; one that is over at once is followed by the next."""
    commands: list[AnyCommand] = []
    while True:
        step = _step_at(automation, step_id)
        if step is None:
            status: Status = "failed" if step_id.startswith(_ON_ERROR) else "completed"
            return _end(firing, status, commands)
        firing = msgspec.structs.replace(
            firing, cursor=step_id, attempt=1, retry_at=None, deadline=None, status="running"
        )
        if (skipped := _skipped(firing, step, automation)) is not None:
            firing, step_id = _with_result(firing, step_id, skipped), _next(step_id)
            continue
        try:
            order = command(firing, step, now, automation)
        except HopBudgetError as error:
            return _dead(firing, str(error), commands)
        except (RenderError, InvalidEventError) as error:
            failed, more = _failed(firing, str(error), now, automation)
            return failed, commands + more
        commands.append(order)
        if not isinstance(order, EmitEvent):
            return _await(firing, step, now, commands)
        firing = _with_result(firing, step_id, {name: order.event[name] for name in ("id", "type", "time")})
        step_id = _next(step_id)


def _skipped(firing: Firing, step: Step, automation: Automation) -> dict[str, Any] | None:
    """The result of a step whose `if` does not hold; None where it is to be done."""
    if step.condition is None:
        return None
    verdict = step.condition.judge(variables_of(firing, automation))
    return None if verdict.holds else {"skipped": True, "reason": f"if: {verdict.error or 'does not hold'}"}


def _await(firing: Firing, step: Step, now: Instant, commands: list[AnyCommand]) -> tuple[Firing, list[AnyCommand]]:
    """The command is out; its answer comes as a fact. An approval watches its own deadline."""
    if isinstance(step, ApproveStep):
        return msgspec.structs.replace(firing, status="waiting"), commands
    if isinstance(step, RunStep | NotifyStep) and step.timeout is not None:
        due = now + step.timeout
        return msgspec.structs.replace(firing, deadline=due), [*commands, SetTimer(due, firing.cursor)]
    return firing, commands


def _done(firing: Firing, result: Any, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    return _go(_with_result(firing, firing.cursor, result), _next(firing.cursor), now, automation)


def _refused(
    firing: Firing, fact: StepFailed, step: RunStep | NotifyStep, now: Instant, automation: Automation
) -> tuple[Firing, list[AnyCommand]]:
    """A run that was not accepted is tried again; a message has been retried by the notifier before it failed."""
    if fact.attempt != firing.attempt or firing.retry_at is not None or firing.status == "waiting":
        return firing, []
    if not (fact.retryable and isinstance(step, RunStep) and firing.attempt < step.retry.attempts):
        return _failed(firing, fact.error, now, automation)
    due = now + step.retry.pause(firing.attempt)
    return msgspec.structs.replace(firing, status="waiting", retry_at=due), [SetTimer(due, firing.cursor)]


def _timer(
    firing: Firing, step: RunStep | NotifyStep, now: Instant, automation: Automation
) -> tuple[Firing, list[AnyCommand]]:
    if firing.deadline is not None and now >= firing.deadline:
        return _failed(firing, "the step took longer than its `timeout`", now, automation)
    if firing.retry_at is None or now < firing.retry_at:
        return firing, []
    again = msgspec.structs.replace(firing, status="running", attempt=firing.attempt + 1, retry_at=None)
    return again, [command(again, step, now, automation)]


def _decided(
    firing: Firing, fact: ApprovalDecided, now: Instant, automation: Automation
) -> tuple[Firing, list[AnyCommand]]:
    at = None if fact.at is None else format_instant(fact.at)
    result = {"outcome": fact.outcome, "by": fact.by, "at": at, "comment": fact.comment}
    if fact.outcome == "approved":
        return _done(firing, result, now, automation)
    return _end(_with_result(firing, firing.cursor, result), "rejected", [])


def _failed(firing: Firing, error: str, now: Instant, automation: Automation) -> tuple[Firing, list[AnyCommand]]:
    """A step failed for good: `on_error`, unless it is that which failed, or there is none."""
    if firing.cursor.startswith(_ON_ERROR) or not automation.on_error:
        return _dead(firing, error, [])
    return _go(_with_result(firing, firing.cursor, {"error": error}), f"{_ON_ERROR}0", now, automation)


def _dead(firing: Firing, reason: str, commands: list[AnyCommand]) -> tuple[Firing, list[AnyCommand]]:
    marked = _with_result(firing, firing.cursor, {"error": reason})
    return _end(marked, "dead_lettered", [*commands, DeadLetter(firing.cursor, reason)])


def _end(firing: Firing, status: Status, commands: list[AnyCommand]) -> tuple[Firing, list[AnyCommand]]:
    ended = msgspec.structs.replace(firing, status=status, retry_at=None, deadline=None)
    return ended, [*commands, Finished(status)]


def _with_result(firing: Firing, step_id: str, result: Any) -> Firing:
    return msgspec.structs.replace(firing, results={**firing.results, step_id: result})


def _step_at(automation: Automation, step_id: str) -> Step | None:
    prefix, index = _parts(step_id)
    steps = {"": automation.then, _ON_ERROR: automation.on_error, _ON_RESOLVE: automation.on_resolve}[prefix]
    return steps[index] if index < len(steps) else None


def _next(step_id: str) -> str:
    prefix, index = _parts(step_id)
    return f"{prefix}{index + 1}"


def _parts(step_id: str) -> tuple[str, int]:
    """The list that a step is in, as the beginning of its id, and its place there."""
    name, dot, index = step_id.rpartition(".")
    return f"{name}{dot}", int(index)
