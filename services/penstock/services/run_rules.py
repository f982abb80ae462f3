"""What people may do with a run in which state: pure, so that every case can be tried."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias, get_args

from penstock.events.errors import PenstockError
from penstock.flows.states import State

Operation: TypeAlias = Literal["cancel", "retry", "suspend", "resume"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
CANCEL, SUSPEND = "cancel", "suspend"  # what may be asked of a run while its code runs (run.asked)

# What a run becomes, and the states from which that may be asked for.
BECOMES: dict[Operation, State] = {
    "cancel": State.CANCELLED,
    "retry": State.RETRYING,
    "suspend": State.PAUSED,
    "resume": State.PENDING,
}
FROM: dict[Operation, frozenset[State]] = {
    "cancel": frozenset(state for state in State if not state.is_final),
    "retry": frozenset({State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED}),
    "suspend": frozenset({State.PENDING, State.RUNNING, State.WAITING, State.RETRYING}),
    "resume": frozenset({State.PAUSED}),
}


class Deed(Enum):
    """How an operation is carried out."""

    CHANGE = "change"  # the state, at once; whoever holds the run loses it
    ASK = "ask"  # the worker that holds it: its code is told, or the next recorded call waited for


class OperationRefusedError(PenstockError):
    """A run is in a state in which this cannot be done with it; nothing was changed."""


def decide(
    operation: Operation, run_id: str, state: State, *, held: bool, asked: str | None, at_once: bool = False
) -> Deed:
    """How to carry out `operation` on a run.  Raises OperationRefusedError.

    held: a worker's lease on it is good.  asked: what was asked of its code before.  at_once: without a word to its
    code, whose process is killed.
    """
    if state not in FROM[operation]:
        allowed = _listed(FROM[operation])
        raise OperationRefusedError(f"run {run_id} is {state}: only a run that is {allowed} can be {_DONE[operation]}")
    if operation == "suspend" and asked == CANCEL:
        raise OperationRefusedError(f"run {run_id} is being cancelled; wait for its end, then `retry` it if need be")
    return Deed.ASK if state is State.RUNNING and held and not at_once else Deed.CHANGE


_DONE: dict[Operation, str] = {
    "cancel": "cancelled",
    "retry": "retried",
    "suspend": "suspended",
    "resume": "resumed",
}


def done(operation: Operation) -> str:
    """The operation as a participle: "cancelled"."""
    return _DONE[operation]


def _listed(states: frozenset[State]) -> str:
    *first, last = [state.value for state in State if state in states]
    return f"{', '.join(first)} or {last}" if first else last
