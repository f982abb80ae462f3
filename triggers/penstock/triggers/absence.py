"""`absent`: nothing came. With `after` each question waits for its answer; without, one watch goes on for ever."""

from __future__ import annotations

from bisect import bisect_right, insort_right
from dataclasses import dataclass

from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import NEVER, Fired, Firings, Hit, Moment, light, within_budget
from penstock.triggers.node_states import Waiting, Watch


@dataclass(frozen=True, slots=True)
class WaitMachine:
    """`absent` with `after`.  leaf, question: numbers of the leaves.  keep, budget: as in CountMachine."""

    leaf: int
    question: int
    within: int
    grace: int
    keep: int
    budget: int

    def load(self, now: Instant) -> None:
        """Nothing runs from its loading."""

    def feed(self, state: Waiting | None, hit: Hit, moment: Moment) -> tuple[Waiting | None, Firings]:
        """An answer closes what is open round its time; a question opens a wait, if no answer to it came before it."""
        found = state or Waiting()
        answers, asks = self.leaf in hit.leaves, self.question in hit.leaves
        if not answers and not asks:
            return state, ()
        if answers:
            found = self._answered(found, hit.event.time)
        if asks:
            found = self._opened(found, hit, moment.now)
        if answers:  # remembered last, for an event never answers itself
            found = self._remembered(found, hit.event.time, moment.now)
        return (found if found.starts or found.answers else None), ()

    def tick(self, state: Waiting | None, moment: Moment) -> tuple[Waiting | None, Firings]:
        """Each question whose deadline has come."""
        if state is None:
            return None, ()
        gone = bisect_right(state.starts, moment.now - self.within - self.grace)
        fired = tuple(
            Fired(start + self.within, moment.number, (question,), start + self.within)
            for start, question in zip(state.starts[:gone], state.questions[:gone], strict=True)
        )
        left = Waiting(state.starts[gone:], state.questions[gone:], self._recent(state.answers, moment.now))
        return (left if left.starts or left.answers else None), fired

    def due(self, state: Waiting) -> Instant | None:
        """The earliest deadline, with its grace."""
        return state.starts[0] + self.within + self.grace if state.starts else None

    def gap(self, state: Waiting, now: Instant) -> Waiting | None:
        """An answer may be among what was lost: nobody waits for it any more."""
        return Waiting((), (), state.answers) if state.answers else None

    def expires(self, state: Waiting) -> Instant:
        """When no question can come any more that one of the answers would answer."""
        return min(state.answers[-1] + self.keep, NEVER) if state.answers else NEVER

    def _answered(self, state: Waiting, time: Instant) -> Waiting:
        open_ = [not start <= time <= start + self.within for start in state.starts]
        if all(open_):
            return state
        pairs = [
            each for each, kept in zip(zip(state.starts, state.questions, strict=True), open_, strict=True) if kept
        ]
        return Waiting(tuple(start for start, _ in pairs), tuple(each for _, each in pairs), state.answers)

    def _opened(self, state: Waiting, hit: Hit, now: Instant) -> Waiting:
        start = min(hit.event.time, now)
        after = bisect_right(state.answers, start)
        if after < len(state.answers) and state.answers[after] <= start + self.within:
            return state
        if hit.late and start + self.within + self.grace < now:
            return state  # accepted, but what could have answered it is forgotten: no silence is invented
        place = bisect_right(state.starts, start)
        starts = (*state.starts[:place], start, *state.starts[place:])
        questions = (*state.questions[:place], hit.event, *state.questions[place:])
        return Waiting(starts, within_budget(questions, self.budget), state.answers)

    def _remembered(self, state: Waiting, time: Instant, now: Instant) -> Waiting:
        times = list(self._recent(state.answers, now))
        insort_right(times, time)
        return Waiting(state.starts, state.questions, thinned(times, self.within))

    def _recent(self, answers: tuple[Instant, ...], now: Instant) -> tuple[Instant, ...]:
        horizon = now - self.keep
        return answers if not answers or answers[0] >= horizon else tuple(each for each in answers if each >= horizon)


@dataclass(frozen=True, slots=True)
class WatchMachine:
    """`absent` without `after`.  from_loading: it has no `per`, and is watched from its loading."""

    leaf: int
    within: int
    grace: int
    from_loading: bool

    def load(self, now: Instant) -> Watch | None:
        """A watch without `per` begins."""
        return Watch(now) if self.from_loading else None

    def feed(self, state: Watch | None, hit: Hit, moment: Moment) -> tuple[Watch | None, Firings]:
        """A match that is not older than the last one moves the deadline, and ends a silence that was told."""
        if self.leaf not in hit.leaves:
            return state, ()
        event = hit.event
        time = min(event.time, moment.now)
        if state is not None and time < state.last:
            return self._older(state, event), ()
        resolved = state is not None and state.quiet
        fired = (Fired(event.time, moment.number, (event,), kind="resolved"),) if resolved else ()
        return Watch(time, light(event)), fired

    def _older(self, state: Watch, event: Evidence) -> Watch:
        """A match from before the loading moves nothing, but is the last one until there is another."""
        if state.quiet or (state.event is not None and state.event.time > event.time):
            return state
        return Watch(state.last, light(event))

    def tick(self, state: Watch | None, moment: Moment) -> tuple[Watch | None, Firings]:
        """The silence is told, once."""
        if state is None or state.quiet or state.last + self.within + self.grace > moment.now:
            return state, ()
        deadline = state.last + self.within
        events = () if state.event is None else (state.event,)
        return Watch(state.last, None, quiet=True), (Fired(deadline, moment.number, events, deadline),)

    def due(self, state: Watch) -> Instant | None:
        """The deadline, with its grace."""
        return None if state.quiet else state.last + self.within + self.grace

    def gap(self, state: Watch, now: Instant) -> Watch:
        """A sign of life may be among what was lost: the watch begins anew."""
        return state if state.quiet else Watch(max(state.last, now), state.event)

    def expires(self, state: Watch) -> Instant:
        """Never: after a silence the first match resolves."""
        return NEVER


def thinned(times: list[Instant], within: int) -> tuple[Instant, ...]:
    """Answers without those between two others no more than `within` apart: whatever they answer, one of those does."""
    kept: list[Instant] = []
    for time in times:
        while len(kept) > 1 and time - kept[-2] <= within:
            kept.pop()
        kept.append(time)
    return tuple(kept)
