"""`schedule`: it fires at each due time that its rule calculates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penstock.events.instants import Instant
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment
from penstock.triggers.node_states import Next


@dataclass(frozen=True, slots=True)
class ScheduleMachine:
    """One `schedule` trigger; see `forms.Schedule`."""

    next_after: Callable[[Instant], Instant | None]
    missed: Literal["all", "latest", "none"]
    tolerance: int

    def load(self, now: Instant) -> Next | None:
        """The first due time after its loading."""
        return _next(self.next_after(now))

    def feed(self, state: Next | None, hit: Hit, moment: Moment) -> tuple[Next | None, Firings]:
        """Events are nothing to it."""
        return state, ()

    def tick(self, state: Next | None, moment: Moment) -> tuple[Next | None, Firings]:
        """A due time has come, or was missed."""
        if state is None or state.due > moment.now:
            return state, ()
        following = self.next_after(state.due)
        behind = moment.limit - state.due > self.tolerance
        last = following is None or following > moment.limit
        fires = not behind or self.missed == "all" or (self.missed == "latest" and last)
        fired = (Fired(state.due, moment.number, (), state.due),) if fires else ()
        return _next(following), fired

    def due(self, state: Next) -> Instant | None:
        """The next due time."""
        return state.due

    def gap(self, state: Next, now: Instant) -> Next:
        """What was lost says nothing about silence here."""
        return state

    def expires(self, state: Next) -> Instant:
        """Never; once there is no due time left, there is no state."""
        return NEVER


def _next(due: Instant | None) -> Next | None:
    return None if due is None else Next(due)
