"""One rule, one key: events and the clock in, decisions and the next state out. Pure; live and simulated are the same.

The clock of `feed`, `tick` and `load` says how far the stream has been read: every event that arrived at or before it
has been fed. It may lag behind the arrivals fed, as the progress clock of a match partition does; while the events of a
key come in order of arrival, what is decided does not depend on by how much. It never runs back. A deadline at d is
told once the clock has reached d, `at` d; an event that arrived after an open deadline of its key is held until then,
and is taken in order of arrival with others that are.
"""

from __future__ import annotations

from bisect import insort_right

import msgspec

from penstock.events.instants import Instant
from penstock.triggers import stages
from penstock.triggers.decisions import Decision
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import NEVER, Fired, Hit, Moment
from penstock.triggers.forms import Rule
from penstock.triggers.nodes import KEEP_LATE
from penstock.triggers.rule_machine import Machine, Match, machine_of
from penstock.triggers.state import EMPTY, KeyState

__all__ = ["Match", "Step", "decide_alone", "feed", "gap", "load", "tick"]


class Step(msgspec.Struct, frozen=True, gc=False):
    """What came of it.

    wake: the earliest clock at which `tick` must be called (None: never, unless it is fed).
    expires: where there is no `wake`: the clock from which on the state is EMPTY, so that its row can be deleted
    unread (None: never, or now).
    late: the event came more than `lateness` after its time; it took part in nothing, unless `late: accept` let it.
    """

    state: KeyState
    decisions: tuple[Decision, ...] = ()
    wake: Instant | None = None
    expires: Instant | None = None
    late: bool = False


def feed(rule: Rule, key: str, state: KeyState, match: Match, clock: Instant) -> Step:
    """Take one event in.  A repeated (source, id) is the caller's to drop: it knows them for longer than a window.

    key: as `key_of` gives it.
    """
    machine = machine_of(rule)
    late = machine.is_late(match)
    hit = None if late and not rule.accept_late else machine.hit(match, late=late)
    run = _Run(machine, key, state, clock)
    if hit is not None:
        run.hold(hit)
    return run.step(late=late)


def tick(rule: Rule, key: str, state: KeyState, clock: Instant) -> Step:
    """Let the clock run up to `clock`: deadlines pass, what was held is taken in, what is over is forgotten."""
    return _Run(machine_of(rule), key, state, clock).step()


def load(rule: Rule, key: str, state: KeyState, at: Instant) -> Step:
    """A version of the rule was first activated: its schedules and its watches without `per` begin.

    Only for rules that say `needs_loading`, for the key `NO_KEY`; a state that there is already goes on.
    """
    run = _Run(machine_of(rule), key, state, at - 1)
    if run.tree is None:
        run.tree = run.machine.node.load(at)
        run.now = max(run.now, at)
    return run.step()


def gap(rule: Rule, key: str, state: KeyState, at: Instant) -> Step:
    """Events that arrived up to `at` may have been lost: no absence is told across them.

    Questions that wait are let go, watches begin anew; all else goes on with what there is.
    """
    run = _Run(machine_of(rule), key, state, at - 1)
    run.lose(at)
    return run.step()


def decide_alone(rule: Rule, key: str, evidence: Evidence, at: Instant) -> Decision | None:
    """What a rule that is `stateless` decides on one event: fired, or suppressed by `if`; None while it is disabled."""
    if not rule.enabled:
        return None
    found = stages.firing(rule, key, Fired(evidence.time, 0, (evidence,)), at)
    reason = stages.refused(rule, found)
    return stages.suppressed(rule, found, reason) if reason else found


class _Run:
    """One call's work on one state; what it holds is replaced, never changed in place."""

    __slots__ = ("clock", "decisions", "held", "key", "log", "machine", "now", "number", "passed", "settling", "tree")

    def __init__(self, machine: Machine, key: str, state: KeyState, clock: Instant) -> None:
        self.machine, self.key, self.clock = machine, key, clock
        self.now, self.number, self.tree = state.clock, state.number, state.tree
        self.held, self.settling, self.log, self.passed = state.held, state.settling, state.log, state.passed
        self.decisions: list[Decision] = []

    def hold(self, hit: Hit) -> None:
        """Put an event in its place among those to be taken in."""
        if not self.held:
            self.held = (hit,)
            return
        held = list(self.held)
        insort_right(held, hit, key=_event_order if self.machine.rule.order_event_time else _arrival_order)
        self.held = tuple(held)

    def step(self, *, late: bool = False) -> Step:
        """Take in what can be; the state after it, and when it must be looked at again."""
        due = self.advance()
        wake = self._wake(due)
        if wake is not None:
            return Step(self._state(), tuple(self.decisions), wake, None, late)
        expires = self._expires()
        if expires <= self.clock:
            return Step(EMPTY, tuple(self.decisions), None, None, late)
        return Step(self._state(), tuple(self.decisions), None, None if expires == NEVER else expires, late)

    def lose(self, at: Instant) -> None:
        """Before anything is taken in or rung: what waited for events that may be lost."""
        if self.tree is not None:
            self.tree = self.machine.node.gap(self.tree, at - self.machine.shift)

    def advance(self) -> Instant | None:
        """Events and timers in the order of the clock, events first at one instant; then when the next timer is due."""
        ordered = self.machine.rule.order_event_time
        while True:
            due = self._due()
            timer = None if due is None else max(due, self.now)
            if self.held:
                taken = max(self.held[0].taken, self.now)
                if timer is None or taken <= timer:
                    if ordered and taken > self.clock:
                        return due
                    self._take(taken)
                    continue
            if timer is None or timer > self.clock:
                return due
            self._ring(timer)

    def _take(self, now: Instant) -> None:
        hit, self.held = self.held[0], self.held[1:]
        self.tree, firings = self.machine.node.feed(self.tree, hit, self._moment(now))
        for fired in firings:
            self._decide(fired)

    def _ring(self, now: Instant) -> None:
        """The tree's timers first, then debounce's."""
        moment = self._moment(now)
        due = None if self.tree is None else self.machine.node.due(self.tree)
        if due is not None and due <= moment.now:
            self.tree, firings = self.machine.node.tick(self.tree, moment)
            for fired in firings:
                self._decide(fired)
        elif self.settling is not None:
            settling, self.settling = self.settling, None
            self._throttle(stages.firing(self.machine.rule, self.key, stages.settled_firing(settling, now), now))

    def _moment(self, now: Instant) -> Moment:
        self.now = now
        self.number += 1
        return Moment(now - self.machine.shift, self.number, self.clock - self.machine.shift)

    def _decide(self, fired: Fired) -> None:
        """Through the stages; a resolve passes none, and exists only if its firing was let through."""
        rule = self.machine.rule
        found = stages.firing(rule, self.key, fired, self.now)
        if fired.kind == "resolved":
            if self.passed and rule.enabled:
                self.decisions.append(found)
            self.passed = False
            return
        self.passed = False
        if not rule.enabled:
            return
        if reason := stages.refused(rule, found):
            self.decisions.append(stages.suppressed(rule, found, reason))
        elif rule.stages.debounce is not None:
            self.settling = stages.settled(rule.stages.debounce, self.settling, fired, self.now)
        else:
            self._throttle(found)

    def _throttle(self, found: Decision) -> None:
        rule = self.machine.rule
        if not rule.enabled:
            return
        limits = rule.stages.limits
        if limits and (reason := stages.throttled(limits, self.log, self.now)):
            self.decisions.append(stages.suppressed(rule, found, reason))
            return
        self.log = stages.noted(limits, self.log, self.now)
        self.passed = True
        self.decisions.append(found)

    def _due(self) -> Instant | None:
        """The next timer, on the clock of decisions."""
        due = None if self.tree is None else self.machine.node.due(self.tree)
        if due is not None:
            due += self.machine.shift
        if self.settling is None:
            return due
        debounce = self.machine.rule.stages.debounce
        # an edit may have taken the stage away
        settles = self.settling.last if debounce is None else stages.settles_at(debounce, self.settling)
        return settles if due is None else min(due, settles)

    def _wake(self, due: Instant | None) -> Instant | None:
        """When the clock lets something be taken in, or rings a timer; what is held behind one waits for it."""
        if self.held and self.machine.rule.order_event_time:
            return max(self.now, min(self.held[0].taken, NEVER if due is None else due))
        return None if due is None else max(self.now, due)

    def _expires(self) -> Instant:
        found = stages.forgotten_at(self.machine.rule.stages.limits, self.log)
        if self.tree is not None:
            found = max(found, min(self.machine.node.expires(self.tree) + self.machine.shift, NEVER))
            if self.machine.rule.accept_late:  # what was just accepted may be older than any window, and is not alone
                found = max(found, self.now + KEEP_LATE)
        return found

    def _state(self) -> KeyState:
        return KeyState(
            clock=self.now,
            number=self.number,
            tree=self.tree,
            held=self.held,
            settling=self.settling,
            log=self.log,
            passed=self.passed,
        )


def _arrival_order(hit: Hit) -> Instant:
    return hit.taken


def _event_order(hit: Hit) -> tuple[Instant, Instant, str, str]:
    return hit.taken, hit.event.time, hit.event.source, hit.event.id
