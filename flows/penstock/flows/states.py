"""The states of a run and which may follow which (design.md §7), as data.

scheduled → pending → running → (paused | waiting | retrying →) → completed | failed | crashed | timed_out | cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a run is in its life; the value is what rows, events and frames carry."""

    SCHEDULED = "scheduled"  # it has a due time and nobody works on it
    PENDING = "pending"  # due: waits for a worker, or is claimed and not begun
    RUNNING = "running"  # its code runs
    PAUSED = "paused"  # waits for a person
    WAITING = "waiting"  # waits for an event, a time or a limit
    RETRYING = "retrying"  # failed, and will be tried again at its due time
    COMPLETED = "completed"
    FAILED = "failed"  # its code raised
    CRASHED = "crashed"  # its process died
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Nothing happens to the run any more of itself; only a person or a rule may have it retried."""
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED})
_ENDS_OF_CODE = frozenset({State.COMPLETED, State.FAILED, State.CRASHED, State.TIMED_OUT})
_ENDS_OF_WAITING = frozenset({State.FAILED, State.TIMED_OUT, State.CANCELLED})

TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.SCHEDULED: frozenset({State.PENDING, State.CANCELLED}),
        # A limit parks it (waiting); its flow is not known or does not take its parameters (failed).
        State.PENDING: frozenset(
            {State.RUNNING, State.WAITING, State.PAUSED, State.RETRYING, State.FAILED, State.CRASHED, State.CANCELLED}
        ),
        # Back to pending: its worker died or handed it back, another one takes it over.
        State.RUNNING: _ENDS_OF_CODE | {State.PENDING, State.PAUSED, State.WAITING, State.RETRYING, State.CANCELLED},
        State.PAUSED: _ENDS_OF_WAITING | {State.PENDING, State.RUNNING},
        State.WAITING: _ENDS_OF_WAITING | {State.PENDING, State.RUNNING, State.PAUSED},
        State.RETRYING: frozenset({State.PENDING, State.RUNNING, State.PAUSED, State.CANCELLED}),
        State.COMPLETED: frozenset(),
        # Retried on request: the same run goes on with its journal.
        State.FAILED: frozenset({State.RETRYING}),
        State.CRASHED: frozenset({State.RETRYING}),
        State.TIMED_OUT: frozenset({State.RETRYING}),
        State.CANCELLED: frozenset({State.RETRYING}),
    }
)


def can_become(old: State, new: State) -> bool:
    """Whether a run in state `old` may be put into state `new`; staying where it is is no change, hence False."""
    return new in TRANSITIONS[old]
