"""The stages behind the window, for the firings of one key: if → debounce → throttle."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.events.instants import SECOND, Instant
from penstock.triggers.conditions import Context
from penstock.triggers.decisions import Decision, decision
from penstock.triggers.firings import NEVER, Fired, joined, named, within_budget
from penstock.triggers.forms import Debounce, Limit, Rule
from penstock.triggers.state import Passed, Settling

LOG = 700  # entries of a throttle's log; beyond it neighbours share the later one's time, so that never too many pass
_BUDGET = 8 * 1024  # bytes of events that debounce keeps


def firing(rule: Rule, key: str, fired: Fired, at: Instant) -> Decision:
    """The decision that a firing is, unless a stage suppresses it."""
    events = named(fired.events)
    return decision(rule, key, fired.kind, at, events, due=fired.due, value=fired.value, from_=fired.from_)


def suppressed(rule: Rule, found: Decision, reason: str) -> Decision:
    """The same, suppressed; reason: beginning with the stage's name."""
    return decision(
        rule,
        found.key,
        "suppressed",
        found.at,
        found.evidence,
        due=found.due,
        reason=reason,
        value=found.value,
        from_=found.from_,
    )


def refused(rule: Rule, found: Decision) -> str:
    """Why `if` does not let a firing through; "" where it does, or where there is no `if`."""
    condition = rule.stages.condition
    if condition is None:
        return ""
    verdict = condition.evaluate(Context(found.cause, found.evidence, rule.vars))
    if verdict.holds and not verdict.error:
        return ""
    return f"if: {verdict.error}" if verdict.error else "if: does not hold"


def settled(debounce: Debounce, before: Settling | None, fired: Fired, at: Instant) -> Settling:
    """A firing joined to those that debounce holds."""
    value, from_ = _json(fired.value), _json(fired.from_)
    if before is None:
        return Settling(at, at, within_budget(fired.events, _BUDGET), value, from_)
    if debounce.keep == "first":
        value, from_ = before.value, before.from_
    events = within_budget(joined((before.events, fired.events)), _BUDGET)
    return Settling(before.first, at, events, value, from_)


def settles_at(debounce: Debounce, settling: Settling) -> Instant:
    """When debounce lets them through, as one."""
    quiet = settling.last + debounce.quiet
    return quiet if debounce.max_ is None else min(quiet, settling.first + debounce.max_)


def settled_firing(settling: Settling, at: Instant) -> Fired:
    """The one firing that they become; a timer decided it."""
    value, from_ = msgspec.json.decode(settling.value), msgspec.json.decode(settling.from_)
    return Fired(at, 0, settling.events, at, value=value, from_=from_)


def throttled(limits: tuple[Limit, ...], log: tuple[Passed, ...], at: Instant) -> str:
    """Why throttle does not let a firing through; "" where it does."""
    for limit in limits:
        inside = [each for each in log if each.at > at - limit.span]
        if sum(each.count for each in inside) >= limit.n:
            return f"throttle: {_named(limit)}"
    return ""


def noted(limits: tuple[Limit, ...], log: tuple[Passed, ...], at: Instant) -> tuple[Passed, ...]:
    """The log with a firing that was let through, without what has left every limit."""
    if not limits:
        return ()
    horizon = at - max(limit.span for limit in limits)
    kept = [each for each in log if each.at > horizon]
    if kept and kept[-1].at == at:
        kept[-1] = Passed(at, kept[-1].count + 1)
    else:
        kept.append(Passed(at))
    return tuple(kept) if len(kept) <= LOG else _coarser(kept)


def _coarser(log: list[Passed]) -> tuple[Passed, ...]:
    """Half as many entries."""
    pairs = zip(log[::2], log[1::2], strict=False)
    found = [Passed(late.at, early.count + late.count) for early, late in pairs]
    return (*found, *log[2 * len(found) :])


def forgotten_at(limits: tuple[Limit, ...], log: tuple[Passed, ...]) -> Instant:
    """When the log matters no more."""
    return min(log[-1].at + max(limit.span for limit in limits), NEVER) if log and limits else -NEVER


def _named(limit: Limit) -> str:
    span = _brief(limit.span)
    return f"cooldown of {span}" if limit.name == "cooldown" else f"limit of {limit.n}/{span}"


def _brief(span: int) -> str:
    for unit, letter in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if span % (unit * SECOND) == 0:
            return f"{span // (unit * SECOND)}{letter}"
    return f"{span / 1_000:g}ms"


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
