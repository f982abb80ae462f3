"""The state machines of a rule's tree of triggers, made out of its forms, and the states that they keep."""

from __future__ import annotations

from itertools import count
from typing import Any, Protocol

from penstock.events.instants import Instant
from penstock.triggers import forms
from penstock.triggers.absence import WaitMachine, WatchMachine
from penstock.triggers.changing import ChangeMachine, text_of
from penstock.triggers.composing import CompositeMachine, Different, in_sequence
from penstock.triggers.counting import CountMachine
from penstock.triggers.due_times import ScheduleMachine
from penstock.triggers.firings import Firings, Hit, Moment
from penstock.triggers.measuring import MetricMachine

BUDGET = 48 * 1024  # bytes of events in the state of one key, shared out among its triggers
KEEP_LATE = 24 * 3600 * 1_000_000  # how long windows are kept for what `late: accept` lets in


class Node(Protocol):
    """One trigger of the tree. Its state is None while nothing of it matters; it never changes a state in place.

    `now` is the machine's clock: event time under `order: event_time`, else the clock.
    """

    def load(self, now: Instant) -> Any:
        """The state of a rule that was just activated."""
        ...

    def feed(self, state: Any, hit: Hit, moment: Moment) -> tuple[Any, Firings]:
        """Take one event in; the same state where it changes nothing."""
        ...

    def tick(self, state: Any, moment: Moment) -> tuple[Any, Firings]:
        """Do what is due at `moment.now`."""
        ...

    def due(self, state: Any) -> Instant | None:
        """The earliest instant at which it must be ticked."""
        ...

    def gap(self, state: Any, now: Instant) -> Any:
        """Events up to now may have been lost: no silence is told that they might have broken."""
        ...

    def expires(self, state: Any) -> Instant:
        """When, if no event comes and nothing is due, its state matters no more (NEVER: it always does)."""
        ...


def node_of(rule: forms.Rule) -> Node:
    """The tree of a rule."""
    keep = rule.lateness + rule.grace + (KEEP_LATE if rule.accept_late else 0)
    budget = max(2_048, BUDGET // len(forms.triggers(rule.trigger)))
    return _Builder(keep, rule.grace, budget).node(rule.trigger)


class _Builder:
    """Numbers the leaves as `forms.leaves` does."""

    def __init__(self, keep: int, grace: int, budget: int) -> None:
        self.keep, self.grace, self.budget = keep, grace, budget
        self.numbers = count()

    def node(self, trigger: forms.Trigger) -> Node:
        if isinstance(trigger, forms.Count):
            return CountMachine(next(self.numbers), trigger.count, trigger.within or 0, self.keep, self.budget)
        if isinstance(trigger, forms.Absent):
            return self._absent(trigger)
        if isinstance(trigger, forms.Metric):
            return _metric(trigger, next(self.numbers))
        if isinstance(trigger, forms.Changed):
            return _changed(trigger, next(self.numbers))
        if isinstance(trigger, forms.Schedule):
            return ScheduleMachine(trigger.next_after, trigger.missed, trigger.tolerance)
        return self._composite(trigger)

    def _absent(self, trigger: forms.Absent) -> Node:
        leaf = next(self.numbers)
        if trigger.after is None:
            return WatchMachine(leaf, trigger.within, self.grace, not trigger.leaf.per)
        return WaitMachine(leaf, next(self.numbers), trigger.within, self.grace, self.keep, self.budget)

    def _composite(self, trigger: forms.Sequence | forms.AtLeast) -> Node:
        below = tuple(self.node(child) for child in forms.children(trigger))
        if isinstance(trigger, forms.Sequence):
            return CompositeMachine(below, trigger.within, self.keep, self.budget // len(below), in_sequence)
        return CompositeMachine(
            below,
            trigger.within,
            self.keep,
            self.budget // len(below),
            Different(trigger.n),
            at_once=trigger.n == 1,
            first_only=trigger.within is None,
        )


def _metric(trigger: forms.Metric, leaf: int) -> MetricMachine:
    return MetricMachine(leaf, trigger.over, trigger.stat, trigger.op, trigger.threshold, trigger.for_, trigger.clear)


def _changed(trigger: forms.Changed, leaf: int) -> ChangeMachine:
    from_ = None if trigger.from_ is forms.UNSET else text_of(trigger.from_)
    to = None if trigger.to is forms.UNSET else text_of(trigger.to)
    return ChangeMachine(leaf, from_, to, trigger.for_)
