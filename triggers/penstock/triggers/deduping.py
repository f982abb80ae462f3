"""`dedupe`: the stage before the windows. It looks at matching events by a value of its own, which may span keys.

So its state is one per (automation, `by` value), beside the keys', and its automation lives in one partition.
"""

from __future__ import annotations

from bisect import insort_right
from dataclasses import dataclass

import msgspec

from penstock.events.instants import Instant
from penstock.triggers.decisions import Decision, decision
from penstock.triggers.evidence import Evidence
from penstock.triggers.forms import Dedupe, Rule
from penstock.triggers.rule_machine import Match, machine_of

FORMAT = 1


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that waits for its turn under `order: event_time`, with the keys and leaves that it is for."""

    taken: Instant
    event: Evidence
    arrival: Instant
    keys: tuple[tuple[str, tuple[int, ...]], ...]


class ByState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of one value of `by`: when an event was last let through, and those that wait."""

    v: int = FORMAT
    let_through: Instant | None = None
    held: tuple[Waiting, ...] = ()


UNSEEN = ByState()

_decoder = msgspec.msgpack.Decoder(ByState)


@dataclass(frozen=True, slots=True)
class Deduped:
    """What came of it.

    passed: what to feed to the keys now, in order: each with the clock that was before this step; then tick the keys.
    wake, expires, late: as in `machine.Step`.
    """

    state: ByState
    passed: tuple[tuple[str, Match], ...] = ()
    decisions: tuple[Decision, ...] = ()
    wake: Instant | None = None
    expires: Instant | None = None
    late: bool = False


def dedupe(
    rule: Rule,
    state: ByState,
    event: Evidence,
    arrival: Instant,
    keys: tuple[tuple[str, tuple[int, ...]], ...],
    clock: Instant,
) -> Deduped:
    """Let one event through to its keys, or drop it.  clock: as in `machine`.

    keys: the event's keys, each with the leaves hit.  Only for rules with `stages.dedupe`.  A late event that is not
    accepted is told and touches nothing.
    """
    machine = machine_of(rule)
    late = machine.is_late(Match((), event, arrival))
    if late and not rule.accept_late:
        return _rested(rule, state, (), (), clock, late=True)
    taken = max(arrival, event.time + rule.lateness) if rule.order_event_time else arrival
    held = list(state.held)
    insort_right(held, Waiting(taken, event, arrival, keys), key=_order)
    until = clock if rule.order_event_time else max(clock, taken)
    return _drained(rule, ByState(let_through=state.let_through, held=tuple(held)), until, late=late)


def tick(rule: Rule, state: ByState, clock: Instant) -> Deduped:
    """Let the clock run up to `clock`."""
    return _drained(rule, state, clock)


def encode(state: ByState) -> bytes:
    """The stored form."""
    return msgspec.msgpack.encode(state)


def decode(body: bytes) -> ByState:
    """From the stored form.  Raises msgspec.MsgspecError for what is none."""
    return _decoder.decode(body)


def _drained(rule: Rule, state: ByState, until: Instant, *, late: bool = False) -> Deduped:
    """Take in those whose turn has come."""
    passed: list[tuple[str, Match]] = []
    decisions: list[Decision] = []
    last, held = state.let_through, state.held
    while held and held[0].taken <= until:
        first, held = held[0], held[1:]
        if last is not None and first.taken - last < _spec(rule).for_:
            decisions += _dropped(rule, first)
        else:
            last = first.taken
            passed += [(key, Match(leaves, first.event, first.arrival)) for key, leaves in first.keys]
    return _rested(rule, ByState(let_through=last, held=held), tuple(passed), tuple(decisions), until, late=late)


def _dropped(rule: Rule, waiting: Waiting) -> list[Decision]:
    if not rule.enabled:
        return []
    reason = "dedupe: one like it was let through shortly before"
    return [
        decision(rule, key, "suppressed", waiting.taken, (waiting.event,), reason=reason) for key, _ in waiting.keys
    ]


def _rested(
    rule: Rule,
    state: ByState,
    passed: tuple[tuple[str, Match], ...],
    decisions: tuple[Decision, ...],
    clock: Instant,
    *,
    late: bool,
) -> Deduped:
    if state.held:
        return Deduped(state, passed, decisions, state.held[0].taken, None, late)
    expires = None if state.let_through is None else state.let_through + _spec(rule).for_
    if expires is None or expires <= clock:
        return Deduped(UNSEEN, passed, decisions, None, None, late)
    return Deduped(state, passed, decisions, None, expires, late)


def _spec(rule: Rule) -> Dedupe:
    spec = rule.stages.dedupe
    if spec is None:
        raise ValueError(f"automation {rule.name!r} has no `dedupe`; feed its events to the machine")
    return spec


def _order(waiting: Waiting) -> tuple[Instant, Instant, str, str]:
    return waiting.taken, waiting.event.time, waiting.event.source, waiting.event.id
