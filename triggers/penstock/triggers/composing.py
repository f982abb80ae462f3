"""What `sequence`, `all`, `any` and `at_least` have in common: children, and their firings kept until they fulfil."""

from __future__ import annotations

from bisect import bisect_left, insort_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from penstock.events.instants import Instant
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment, joined, within_budget
from penstock.triggers.node_states import Group, NodeState

if TYPE_CHECKING:
    from penstock.triggers.nodes import Node

MAX_FIRINGS = 256  # kept of one child; beyond it those in the middle go, so that both ends of a long window stay

Choice: TypeAlias = tuple[Fired, ...]  # one firing each of different children, in order of event time
Kept: TypeAlias = tuple[Firings, ...]  # by child, each in order of event time
New: TypeAlias = list[tuple[int, Fired]]  # firings just put in, with the number of their child


@dataclass(frozen=True, slots=True)
class CompositeMachine:
    """A composite; `choose` finds the choice that fulfils it, if there is one.

    within: None for no limit.  keep: as in CountMachine.
    at_once: any single firing fulfils it, so that none is kept.
    first_only: of a child only the earliest firing can matter.
    """

    children: tuple[Node, ...]
    within: int | None
    keep: int
    budget: int
    choose: Callable[[Kept, int | None, New], Choice]
    at_once: bool = False
    first_only: bool = False

    def load(self, now: Instant) -> Group | None:
        """What runs from its loading below."""
        return self._group(self._nothing(), tuple(child.load(now) for child in self.children))

    def feed(self, state: Group | None, hit: Hit, moment: Moment) -> tuple[Group | None, Firings]:
        """One event, which may fire several children; the composite fires once at most."""
        states, firings, changed = self._fed(state, hit, moment)
        if not changed and not firings:
            return state, ()
        kept = state.fired if state is not None else self._nothing()
        kept, fired = self._taken(kept, firings, moment, None)
        return self._group(kept, states), () if fired is None else (fired,)

    def tick(self, state: Group | None, moment: Moment) -> tuple[Group | None, Firings]:
        """The timers of the children; each of their firings may fulfil the composite."""
        if state is None:
            return None, ()
        kept, states, fired = state.fired, list(state.children), list[Fired]()
        for index, child in enumerate(self.children):
            below = states[index]
            if below is None or not _is_due(child.due(below), moment.now):
                continue
            states[index], firings = child.tick(below, moment)
            for each in _fired(firings):
                kept, found = self._taken(kept, [(index, each)], moment, each.due)
                if found is not None and not any(_same(found, other) for other in fired):
                    fired.append(found)
        return self._group(kept, tuple(states)), tuple(fired)

    def due(self, state: Group) -> Instant | None:
        """The earliest timer below."""
        found: Instant | None = None
        for child, below in zip(self.children, state.children, strict=True):
            if below is not None:
                due = child.due(below)
                if due is not None and (found is None or due < found):
                    found = due
        return found

    def gap(self, state: Group, now: Instant) -> Group | None:
        """The children's; what fired before stays."""
        pairs = zip(self.children, state.children, strict=True)
        states = tuple(None if below is None else child.gap(below, now) for child, below in pairs)
        return self._group(state.fired, states)

    def expires(self, state: Group) -> Instant:
        """When neither a child nor a kept firing can matter any more."""
        found = [each[-1].time for each in state.fired if each]
        latest = [NEVER if self.within is None else max(found) + self.within + self.keep] if found else []
        pairs = zip(self.children, state.children, strict=True)
        latest += [child.expires(below) for child, below in pairs if below is not None]
        return min(max(latest), NEVER)

    def _fed(
        self, state: Group | None, hit: Hit, moment: Moment
    ) -> tuple[tuple[NodeState | None, ...], list[tuple[int, Fired]], bool]:
        """The children's states after an event, which of them fired, and whether any state changed."""
        states: list[NodeState | None] = list(state.children) if state is not None else [None] * len(self.children)
        fired: list[tuple[int, Fired]] = []
        changed = False
        for index, child in enumerate(self.children):
            before = states[index]
            after, firings = child.feed(before, hit, moment)
            if after is not before:
                states[index], changed = after, True
            fired += [(index, each) for each in _fired(firings)]
        return tuple(states), fired, changed

    def _taken(self, kept: Kept, firings: New, moment: Moment, due: Instant | None) -> tuple[Kept, Fired | None]:
        """The firings put beside the others, and the composite's own, which empties its state."""
        if not firings:
            return kept, None
        new = firings[0][1]
        if self.at_once:
            return kept, Fired(new.time, moment.number, new.events, due)
        lowest = min(each.time for _, each in firings)
        kept = self._with(self._pruned(kept, min(lowest, moment.now)), firings)
        choice = self.choose(kept, self.within, firings)
        if not choice:
            return kept, None
        time = max(each.time for each in choice)
        return self._nothing(), Fired(time, moment.number, joined(each.events for each in choice), due)

    def _with(self, kept: Kept, firings: New) -> Kept:
        found = list(kept)
        for index, new in firings:
            plain = Fired(new.time, new.number, within_budget(new.events, self.budget))
            each = found[index]
            if not each or each[-1].time <= plain.time:
                found[index] = (*each, plain)
            else:
                sorted_ = list(each)
                insort_right(sorted_, plain, key=_place)
                found[index] = tuple(sorted_)
            found[index] = self._bounded(found[index])
        return tuple(found)

    def _bounded(self, firings: Firings) -> Firings:
        if self.first_only:
            return firings[:1]
        if len(firings) > MAX_FIRINGS:
            half = MAX_FIRINGS // 2
            firings = (*firings[:half], *firings[1 - half :])
        return _lighter(firings, self.budget // 2)

    def _pruned(self, kept: Kept, now: Instant) -> Kept:
        """Without what is too old for any firing that may still come."""
        if self.within is None:
            return kept
        horizon = now - self.within - self.keep
        if all(not each or each[0].time >= horizon for each in kept):
            return kept
        return tuple(tuple(one for one in each if one.time >= horizon) for each in kept)

    def _group(self, kept: Kept, states: tuple[NodeState | None, ...]) -> Group | None:
        if not any(kept) and all(each is None for each in states):
            return None
        return Group(kept, states)

    def _nothing(self) -> Kept:
        return ((),) * len(self.children)


def in_sequence(kept: Kept, within: int | None, new: New) -> Choice:
    """The earliest firing of each child, each after the one before, no event in two of them; () if there is none.

    new: a choice holds one of these.
    """
    if not all(kept) or not any(_has_room(kept, index, each) for index, each in new):
        return ()
    search = _Search(kept)
    earliest = -NEVER if within is None else min(each.time for _, each in new) - within
    for first in kept[0][bisect_left(kept[0], earliest, key=_time) :]:
        found = search.continued((first,), NEVER if within is None else first.time + within)
        if found or search.patience <= 0:
            return found
    return ()


def _has_room(kept: Kept, index: int, new: Fired) -> bool:
    """Whether there are firings of the steps before it before it, and of those after it behind it: a quick look."""
    place = new.place
    for step in range(index - 1, -1, -1):
        before = bisect_left(kept[step], place, key=_place)
        if before == 0:
            return False
        place = kept[step][before - 1].place
    place = new.place
    for step in range(index + 1, len(kept)):
        behind = bisect_left(kept[step], (place[0], place[1] + 1), key=_place)
        if behind == len(kept[step]):
            return False
        place = kept[step][behind].place
    return True


class _Search:
    """One search for a sequence; only steps of several events that they share can need many looks."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.patience = 20_000
        self.single = [True] * (len(kept) + 1)  # whether from this step on each firing has one event at most
        for index in range(len(kept) - 1, -1, -1):
            self.single[index] = self.single[index + 1] and all(len(each.events) < 2 for each in kept[index])

    def continued(self, chain: Choice, limit: Instant) -> Choice:
        """The chain with one firing of each step left, or ()."""
        step = len(chain)
        if step == len(self.kept):
            return chain
        after = bisect_left(self.kept[step], (chain[-1].time, chain[-1].number + 1), key=_place)
        for each in self.kept[step][after:]:
            self.patience -= 1
            if each.time > limit or self.patience <= 0:
                break
            if _overlap(each, chain):
                continue
            found = self.continued((*chain, each), limit)
            if found or self.single[step + 1]:
                return found  # what failed behind this one fails behind a later one
        return ()


def _overlap(new: Fired, chain: Choice) -> bool:
    if len(new.events) == 1 and all(len(each.events) == 1 for each in chain):
        return any(each.events[0].key == new.events[0].key for each in chain)
    taken = {event.key for each in chain for event in each.events}
    return any(event.key in taken for event in new.events)


@dataclass(frozen=True, slots=True)
class Different:
    """Finds n firings of different children inside the window: those of the earliest start that has them."""

    n: int

    def __call__(self, kept: Kept, within: int | None, new: New) -> Choice:
        """The choice, in order of event time, or ().  new: as for `in_sequence`."""
        if sum(1 for each in kept if each) < self.n:
            return ()
        horizon = -NEVER if within is None else min(each.time for _, each in new) - within
        starts = {one.time for each in kept for one in each if one.time >= horizon}
        for start in sorted(starts):
            found = self._from(kept, start, None if within is None else start + within)
            if found:
                return found
        return ()

    def _from(self, kept: Kept, start: Instant, limit: Instant | None) -> Choice:
        found: list[Fired] = []
        for each in kept:
            place = bisect_left(each, start, key=_time)
            if place < len(each) and (limit is None or each[place].time <= limit):
                found.append(each[place])
        return tuple(sorted(found, key=_place)[: self.n]) if len(found) >= self.n else ()


def _lighter(firings: Firings, budget: int) -> Firings:
    """The newest events with their bodies, as far as so many bytes go; the others without."""
    place = len(firings)
    for each in reversed(firings):
        for event in each.events:
            budget -= len(event.body)
        if budget < 0:
            break
        place -= 1
    if place == 0:
        return firings
    bare = [_bare(each) for each in firings[:place]]
    return (*bare, *firings[place:])


def _bare(fired: Fired) -> Fired:
    """The same without the bodies of its events."""
    for event in fired.events:
        if event.body:
            return Fired(fired.time, fired.number, tuple(one.without_body() for one in fired.events))
    return fired


def _fired(firings: Firings) -> list[Fired]:
    """A child that resolves says nothing to its composite."""
    return [each for each in firings if each.kind == "fired"]


def _same(one: Fired, other: Fired) -> bool:
    """Whether two firings of one instant have one cause."""
    return one.due == other.due and [each.key for each in one.events] == [each.key for each in other.events]


def _is_due(due: Instant | None, now: Instant) -> bool:
    return due is not None and due <= now


def _time(fired: Fired) -> Instant:
    return fired.time


def _place(fired: Fired) -> tuple[Instant, int]:
    return fired.time, fired.number
