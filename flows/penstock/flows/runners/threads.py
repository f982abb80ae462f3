"""Bodies run in threads of the flow's own process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.flows.errors import FlowDefinitionError

if TYPE_CHECKING:
    from penstock.flows.step import Step


@dataclass(frozen=True, slots=True)
class ThreadRunner:
    """The default: right for tasks that wait for others (HTTP, databases, files).

    max_workers: bodies at once; by default the number of processors plus four, at most 32.
    """

    max_workers: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.max_workers)

    def open(self) -> ThreadCrew:
        return ThreadCrew(self.max_workers or min(32, (os.cpu_count() or 1) + 4))


@dataclass(frozen=True, slots=True)
class ThreadCrew:
    """Nothing to open and close: the thread that carries out a call runs its body, too."""

    threads: int

    def run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return step.collecting(*args, **kwargs)

    def close(self) -> None:
        pass


def check_workers(value: int | None) -> None:
    """Raises FlowDefinitionError for what is no number of workers."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000):
        raise FlowDefinitionError(f"max_workers={value!r}: give a whole number from 1 to 10000")
