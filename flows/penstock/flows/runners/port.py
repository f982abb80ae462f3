"""What a task runner is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from penstock.flows.step import Step


class Crew(Protocol):
    """An opened runner."""

    @property
    def threads(self) -> int:
        """How many bodies run at once."""

    def run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function of a sync step, from any thread, and wait for it; raises what it raises."""

    def close(self) -> None:
        """Let go of processes and connections; bodies that still run may be ended."""


class TaskRunner(Protocol):
    """Opened at the first submit of a flow call, closed at its end."""

    def open(self) -> Crew:
        """Make it ready.  Raises RunnerError."""
