"""Hooks: functions of the user's that are called when a flow or a task changes its state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from penstock.flows.errors import FlowDefinitionError
from penstock.flows.states import State


@dataclass(frozen=True, slots=True)
class Moment:
    """What a hook is told.

    kind: "flow" or "task".  name: of the flow or task.  arguments: by name, defaults included.  result: once it has
    completed.  error: what ended it otherwise.  run_id: None for a task that is called outside of runs.
    """

    kind: str
    name: str
    state: State
    arguments: Mapping[str, Any]
    run_id: str | None = None
    result: Any = None
    error: BaseException | None = field(default=None, compare=False)


Hook: TypeAlias = Callable[[Moment], Any]
Hooks: TypeAlias = Hook | Iterable[Hook]

STATES = {
    "on_running": State.RUNNING,
    "on_completion": State.COMPLETED,
    "on_failure": State.FAILED,
    "on_crash": State.CRASHED,
    "on_cancel": State.CANCELLED,
    "on_pause": State.PAUSED,
}


def collect_hooks(options: Mapping[str, Any], is_async: bool) -> dict[State, tuple[Hook, ...]]:
    """The hooks among a decorator's options, by state.  Raises FlowDefinitionError."""
    found = {state: check_hooks(name, options[name], is_async) for name, state in STATES.items() if name in options}
    return {state: hooks for state, hooks in found.items() if hooks}


def check_hooks(name: str, given: Hooks, is_async: bool) -> tuple[Hook, ...]:
    """One hook or several as a tuple.  Raises FlowDefinitionError for what cannot be called, or not from here."""
    hooks = (given,) if callable(given) else tuple(given)
    for hook in hooks:
        if not callable(hook):
            raise FlowDefinitionError(f"{name}={hook!r}: give a function that takes one Moment, or a list of them")
        if inspect.iscoroutinefunction(hook) and not is_async:
            raise FlowDefinitionError(f"{name}: {hook.__qualname__} is async, and can only serve an async function")
    return hooks
