"""What is worked out of a rule once, and how an event becomes a hit for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from penstock.events.instants import Instant
from penstock.triggers import forms
from penstock.triggers.changing import text_of
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import Hit, Reading
from penstock.triggers.forms import Rule
from penstock.triggers.nodes import Node, node_of

_MISSING = object()


class Match(msgspec.Struct, frozen=True, gc=False):
    """One event for one key of a rule.

    leaves: the numbers (see `forms.leaves`) whose pattern it matches and whose key this is, in order.
    evidence: with its JSON.  arrival: its append time.
    """

    leaves: tuple[int, ...]
    evidence: Evidence
    arrival: Instant


def machine_of(rule: Rule) -> Machine:
    """The rule's machine, made once."""
    found = _machines.get(rule)
    if found is None:
        found = _machines[rule] = Machine(rule)
    return found


class Machine:
    """What is worked out of a rule once.

    shift: how far the tree's clock lies behind: `lateness` under `order: event_time`, so that it is event time.
    """

    __slots__ = ("node", "readers", "rule", "shift")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.node: Node = node_of(rule)
        # a schedule has no events to wait for
        self.shift = rule.lateness if rule.order_event_time and forms.leaves(rule) else 0
        self.readers = _readers(rule)

    def is_late(self, match: Match) -> bool:
        """Whether an event came too late to take part."""
        return match.arrival - match.evidence.time > self.rule.lateness and not self.rule.plain

    def hit(self, match: Match, *, late: bool) -> Hit | None:
        """The event with what `metric` and `changed` read of it; None where it has nothing for any of its leaves."""
        arrival, time = match.arrival, match.evidence.time
        taken = max(arrival, time + self.shift) if self.rule.order_event_time else arrival
        if not self.readers:
            return Hit(taken, match.evidence, match.leaves, (), late)
        event = msgspec.json.decode(match.evidence.body or b"null")
        pairs = [(leaf, self._read(leaf, event)) for leaf in match.leaves]
        pairs = [(leaf, reading) for leaf, reading in pairs if reading is not None or leaf not in self.readers]
        if not pairs:
            return None
        return Hit(taken, match.evidence, tuple(leaf for leaf, _ in pairs), tuple(each for _, each in pairs), late)

    def _read(self, leaf: int, event: Any) -> Reading:
        if leaf not in self.readers:
            return None
        path, is_sample = self.readers[leaf]
        value = _lookup(event, path)
        if value is _MISSING:
            return None
        return _sample(value) if is_sample else text_of(value)


def _readers(rule: Rule) -> dict[int, tuple[tuple[str, ...], bool]]:
    """For the leaves of `metric` and `changed`: the path they read, and whether it must be a number."""
    found: dict[int, tuple[tuple[str, ...], bool]] = {}
    number = 0
    for trigger in forms.triggers(rule.trigger):
        if isinstance(trigger, forms.Metric):
            found[number] = (tuple(trigger.value.split(".")), True)
        elif isinstance(trigger, forms.Changed):
            found[number] = (tuple(trigger.path.split(".")), False)
        if not forms.children(trigger):
            number += len(forms.leaves_of(trigger))
    return found


def _lookup(event: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(event, Mapping) or name not in event:
            return _MISSING
        event = event[name]
    return event


def _sample(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 300 digits
        return None


_machines: WeakKeyDictionary[Rule, Machine] = WeakKeyDictionary()
