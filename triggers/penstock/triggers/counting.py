"""`event` with `count` and `within`: at the count-th match inside a sliding window of event time."""

from __future__ import annotations

from bisect import insort_right
from dataclasses import dataclass

from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment, within_budget
from penstock.triggers.node_states import Matches


@dataclass(frozen=True, slots=True)
class CountMachine:
    """One `event` trigger.

    leaf: its number.  keep: how long after its time a match may still be joined by one delivered late.
    budget: bytes of events that its state may hold.
    Source: sliding windows, Akidau et al., The Dataflow Model, PVLDB 8(12), 2015.
    """

    leaf: int
    count: int
    within: int
    keep: int
    budget: int

    def load(self, now: Instant) -> None:
        """Nothing runs from its loading."""

    def feed(self, state: Matches | None, hit: Hit, moment: Moment) -> tuple[Matches | None, Firings]:
        """Take one match in; fire, and empty the window, when it completes one; of several the earliest."""
        if self.leaf not in hit.leaves:
            return state, ()
        new = hit.event
        if self.count == 1:
            return None, (Fired(new.time, moment.number, (new,)),)
        events = self._joined(state, new, moment.now)
        complete = self._complete(events, new)
        if complete:
            return None, (Fired(complete[-1].time, moment.number, complete),)
        return Matches(within_budget(events, self.budget)), ()

    def tick(self, state: Matches | None, moment: Moment) -> tuple[Matches | None, Firings]:
        """It has no timers."""
        return state, ()

    def due(self, state: Matches | None) -> None:
        """It has no timers."""

    def gap(self, state: Matches, now: Instant) -> Matches:
        """What was lost says nothing about silence here."""
        return state

    def expires(self, state: Matches) -> Instant:
        """When no event can join any of its matches any more."""
        return min(state.events[-1].time + self.within + self.keep, NEVER)

    def _joined(self, state: Matches | None, new: Evidence, now: Instant) -> tuple[Evidence, ...]:
        """The matches with the new one in its place, without what no event can join any more."""
        if state is None:
            return (new,)
        events = state.events
        # a device that was offline for long tells its old events in one go: they find each other
        horizon = min(now, new.time) - self.within - self.keep
        if events[0].time < horizon:
            events = tuple(each for each in events if each.time >= horizon)
        if not events or events[-1].time <= new.time:
            return (*events, new)
        sorted_ = list(events)
        insort_right(sorted_, new, key=lambda each: each.time)
        return tuple(sorted_)

    def _complete(self, events: tuple[Evidence, ...], new: Evidence) -> tuple[Evidence, ...]:
        """The earliest run of `count` neighbours that holds the new match and spans no more than `within`."""
        count = self.count
        if len(events) < count:
            return ()
        place = next(index for index in range(len(events) - 1, -1, -1) if events[index] is new)
        for start in range(max(0, place - count + 1), min(place, len(events) - count) + 1):
            if events[start + count - 1].time - events[start].time <= self.within:
                return events[start : start + count]
        return ()
