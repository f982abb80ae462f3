"""`metric`: a statistic of the samples of a window, held against a threshold, with `for` and hysteresis."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.events.instants import Instant
from penstock.triggers import statistics
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment, light
from penstock.triggers.forms import Operator, Statistic
from penstock.triggers.node_states import Measured, Samples
from penstock.triggers.statistics import compares

_FALLS = frozenset({"count", "rate", "max"})  # when a sample leaves these can only fall, `min` only rise


@dataclass(frozen=True, slots=True)
class MetricMachine:
    """One `metric` trigger; its evidence is the sample that decided, or the newest one; its value the statistic."""

    leaf: int
    over: int
    stat: Statistic
    op: Operator
    threshold: float
    for_: int
    clear: float | None

    def load(self, now: Instant) -> None:
        """Nothing runs from its loading."""

    def feed(self, state: Measured | None, hit: Hit, moment: Moment) -> tuple[Measured | None, Firings]:
        """Take one sample in and judge."""
        if self.leaf not in hit.leaves:
            return state, ()
        value = hit.reading(self.leaf)
        if not isinstance(value, float):
            return state, ()
        before = state or Measured(statistics.NONE, moment.now)
        if hit.event.time <= moment.now - self.over:
            return state, ()  # it occurred before the window; nothing that is judged has changed
        samples = statistics.put(before.samples, hit.event.time, value)
        taken = Measured(
            samples, before.judged, before.since, before.fired, _newest(before.event, hit.event, moment.now, self.over)
        )
        return self._judged(taken, moment, hit.event)

    def tick(self, state: Measured | None, moment: Moment) -> tuple[Measured | None, Firings]:
        """Judge, because a sample left or came of age, or because `for` ran out."""
        if state is None:
            return None, ()
        due = self.due(state)
        return (state, ()) if due is None or due > moment.now else self._judged(state, moment, None, due)

    def due(self, state: Measured) -> Instant | None:
        """When the comparison must be judged again."""
        found = state.since + self.for_ if state.since is not None else NEVER
        samples = state.samples
        if state.since is not None or state.fired or self._may_start(samples):
            leaves = statistics.leaves_at(samples, self.over)
            found = min(found, NEVER if leaves is None else leaves)
        if samples.times and samples.times[-1] > state.judged:
            found = min(found, next(time for time in samples.times if time > state.judged))
        return None if found == NEVER else found

    def gap(self, state: Measured, now: Instant) -> Measured:
        """What was lost says nothing about silence here."""
        return state

    def expires(self, state: Measured) -> Instant:
        """When the last sample has left; never while it stands fired, for the next sample may resolve it."""
        if state.fired:
            return NEVER
        latest = [*(pane.last[0] for pane in state.samples.panes), *state.samples.times[-1:]]
        return min(max(latest, default=-self.over) + self.over, NEVER)

    def _judged(
        self, state: Measured, moment: Moment, sample: Evidence | None, due: Instant | None = None
    ) -> tuple[Measured | None, Firings]:
        """sample: the cause; None where it is a timer, `due`."""
        now = moment.now
        samples = statistics.moved(state.samples, now, self.over, percentiles=self.stat.startswith("p"))
        value = statistics.statistic(samples, now, self.over, self.stat)
        holds = value is not None and compares(value, self.op, self.threshold)
        if state.fired:
            resolved = value is not None and self._cleared(value, holds=holds)
            kind = "resolved" if resolved else ""
            since, fired = None, not resolved
        else:
            since = (now if state.since is None else state.since) if holds else None
            fired = since is not None and now - since >= self.for_
            kind = "fired" if fired else ""
            since = None if fired else since
        cause = sample if due is None else state.event
        said = (_said(kind, moment, cause, due, value),) if kind else ()
        return self._kept(Measured(samples, now, since, fired, state.event)), said

    def _kept(self, state: Measured) -> Measured | None:
        """Nothing, where there are no samples left and nothing stands or is about to."""
        if state.samples.times or state.samples.panes or state.since is not None:
            return state
        return Measured(state.samples, state.judged, None, True) if state.fired else None

    def _cleared(self, value: float, *, holds: bool) -> bool:
        if self.clear is None:
            return not holds
        return value < self.clear if self.op in (">", ">=") else value > self.clear

    def _may_start(self, samples: Samples) -> bool:
        """Whether a sample's leaving could make the comparison hold, so that it must be judged then."""
        falls, rises = self.stat in _FALLS, self.stat == "min"
        if self.stat == "sum" and not samples.panes:
            falls, rises = all(value >= 0 for value in samples.values), all(value <= 0 for value in samples.values)
        return not (falls if self.op in (">", ">=") else rises)


def _said(kind: str, moment: Moment, cause: Evidence | None, due: Instant | None, value: float | None) -> Fired:
    events = () if cause is None else (cause,)
    time = moment.now if due is not None or cause is None else cause.time
    return Fired(time, moment.number, events, due, "resolved" if kind == "resolved" else "fired", value)


def _newest(before: Evidence | None, new: Evidence, now: Instant, over: int) -> Evidence:
    """The event of the newest sample in the window; one stamped ahead only while there is no other."""
    if before is None or before.time <= now - over:
        return light(new)
    if before.time > now:
        return light(new) if new.time <= now else before
    return light(new) if before.time <= new.time <= now else before
