"""What `mode` would do to simulated firings if their actions took some time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from penstock.events.instants import Instant
from penstock.triggers.decisions import Decision
from penstock.triggers.forms import Mode, Rule
from penstock.triggers.modes import Unended, admit, next_to_start

_Place: TypeAlias = tuple[str, str, str]  # namespace, automation, key


@dataclass(slots=True)
class _Lane:
    """The firings of one automation and key that have not ended: each with its end, None while it waits."""

    unended: dict[str, tuple[Decision, Instant | None]] = field(default_factory=dict)
    dropped: bool = False  # whether the last firing was

    def view(self) -> list[Unended]:
        return [Unended(name, ends is None) for name, (_, ends) in self.unended.items()]


class Rehearsal:
    """Decisions with the stage `mode` behind them.  run_time: microseconds that each firing's actions take."""

    def __init__(self, rules: Iterable[Rule], run_time: int) -> None:
        self._modes: dict[tuple[str, str], Mode] = {(rule.namespace, rule.name): rule.stages.mode for rule in rules}
        self._run_time = run_time
        self._lanes: dict[_Place, _Lane] = {}

    def over(self, decisions: Iterable[Decision]) -> Iterator[Decision]:
        """decisions: in order of time."""
        for found in decisions:
            if found.kind == "suppressed":
                yield found
                continue
            lane = self._lanes.setdefault((found.namespace, found.automation, found.key), _Lane())
            if found.kind == "fired":
                yield from self._fired(lane, found)
            elif not lane.dropped:
                yield found

    def _fired(self, lane: _Lane, found: Decision) -> Iterator[Decision]:
        mode = self._modes[found.namespace, found.automation]
        self._ended(lane, mode, found.at)
        admission = admit(mode, lane.view())
        for name in admission.replaced:
            replaced, ends = lane.unended.pop(name)
            if ends is None:
                yield replace(replaced, kind="suppressed", at=found.at, reason=admission.reason)
        lane.dropped = admission.act == "drop"
        if lane.dropped:
            yield replace(found, kind="suppressed", reason=admission.reason)
            return
        lane.unended[found.id] = found, None if admission.act == "wait" else found.at + self._run_time
        yield found

    def _ended(self, lane: _Lane, mode: Mode, now: Instant) -> None:
        """Let firings end, and those that wait start as they do, up to now."""
        while True:
            over = [(ends, name) for name, (_, ends) in lane.unended.items() if ends is not None and ends <= now]
            if not over:
                return
            ends, name = min(over)
            del lane.unended[name]
            if (started := next_to_start(mode, lane.view())) is not None:
                lane.unended[started] = lane.unended[started][0], ends + self._run_time
