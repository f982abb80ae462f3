"""What the decorators take."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from penstock.flows.caching import Cache
from penstock.flows.errors import FlowDefinitionError
from penstock.flows.hooks import Hooks
from penstock.flows.names import RunName
from penstock.flows.retries import RetryDelay, RetryIf, Seconds
from penstock.flows.runners import TaskRunner
from penstock.flows.serializers import Serializer
from penstock.flows.store import ResultStore

OnChangedCode = Literal["continue", "restart", "ask", "refuse"]


class StepOptions(TypedDict, total=False):
    """Options of flows and tasks alike; see `flow` and `task`."""

    name: str | None
    run_name: RunName | None
    tags: Iterable[str]
    retries: int
    retry_delay: RetryDelay
    retry_if: RetryIf | None
    timeout: Seconds | None
    serializer: str | Serializer
    store: str | ResultStore | None
    on_running: Hooks
    on_completion: Hooks
    on_failure: Hooks
    on_crash: Hooks
    on_cancel: Hooks
    on_pause: Hooks


class TaskOptions(StepOptions, total=False):
    """Options of tasks."""

    cache: Cache | None
    cache_for: Seconds | None
    on_rollback: Any


class FlowOptions(StepOptions, total=False):
    """Options of flows."""

    limits: Iterable[str]
    runner: TaskRunner | None
    log_prints: bool
    on_changed_code: OnChangedCode


def check_options(kind: str, given: Mapping[str, Any], known: type) -> None:
    """Whether all of them are known.  Raises FlowDefinitionError with the nearest name."""
    names = known.__annotations__ | StepOptions.__annotations__
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
            raise FlowDefinitionError(f"@{kind} has no option {name!r}; {hint}")
