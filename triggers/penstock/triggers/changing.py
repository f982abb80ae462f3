"""`changed`: a value differs from the last one seen for the key, and, with `for`, stays so that long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment, light
from penstock.triggers.keys import canonical
from penstock.triggers.node_states import Seen

LONGEST = 2_048  # characters of a value's text; a longer one is known by its digest, and cannot be shown

_DIGEST = "#"  # no JSON text begins so


@dataclass(frozen=True, slots=True)
class ChangeMachine:
    """One `changed` trigger.  from_, to: texts as `text_of` makes them; None: any."""

    leaf: int
    from_: str | None
    to: str | None
    for_: int

    def load(self, now: Instant) -> None:
        """Nothing runs from its loading."""

    def feed(self, state: Seen | None, hit: Hit, moment: Moment) -> tuple[Seen | None, Firings]:
        """Compare with the last value, unless the event is older than that."""
        text = hit.reading(self.leaf) if self.leaf in hit.leaves else None
        time = min(hit.event.time, moment.now)
        if not isinstance(text, str) or (state is not None and time < state.time):
            return state, ()
        if state is None:
            return Seen(time, text), ()
        if text == state.text:
            return Seen(time, text, state.since, state.event, state.before), ()
        if not self._wanted(state.text, text):
            return Seen(time, text), ()
        if self.for_:
            return Seen(time, text, moment.now, light(hit.event), state.text), ()
        return Seen(time, text), (_fired(hit.event.time, moment, hit.event, None, state.text, text),)

    def tick(self, state: Seen | None, moment: Moment) -> tuple[Seen | None, Firings]:
        """The change has lasted."""
        due = None if state is None else self.due(state)
        if state is None or state.event is None or due is None or due > moment.now:
            return state, ()
        return Seen(state.time, state.text), (_fired(due, moment, state.event, due, state.before, state.text),)

    def due(self, state: Seen) -> Instant | None:
        """When `for` runs out."""
        return None if state.since is None else state.since + self.for_

    def gap(self, state: Seen, now: Instant) -> Seen:
        """What was lost says nothing about silence here."""
        return state

    def expires(self, state: Seen) -> Instant:
        """Never: the next event is compared with it."""
        return NEVER

    def _wanted(self, before: str, after: str) -> bool:
        return self.from_ in (None, before) and self.to in (None, after)


def text_of(value: Any) -> str:
    """A JSON value as text that is equal exactly for equal values: 1 and 1.0 are, 1 and true or "1" are not."""
    text = canonical(value)
    return text if len(text) <= LONGEST else _DIGEST + derived_id(text)


def value_of(text: str) -> Any:
    """The JSON value of a text; None where only its digest is known."""
    return None if text.startswith(_DIGEST) else msgspec.json.decode(text)


def _fired(time: Instant, moment: Moment, event: Evidence, due: Instant | None, before: str, after: str) -> Fired:
    return Fired(time, moment.number, (event,), due, value=value_of(after), from_=value_of(before))
