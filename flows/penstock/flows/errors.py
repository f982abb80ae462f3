"""What can go wrong in flows, by name.

PenstockError
└── FlowError
    ├── FlowDefinitionError   a decorator was given something that can never run
    ├── FlowLoadError         a flow module does not import, or two flows share a name
    ├── ParameterError        the parameters of a run do not fit the flow's signature
    ├── TaskResultError       a result cannot be kept as JSON
    ├── NotInRunError         something was asked of a run, outside of one
    ├── TaskTimeoutError      a task took longer than its `timeout` (a TimeoutError)
    └── FlowTimeoutError      a flow took longer than its `timeout` (a TimeoutError)
BaseException
└── RunInterrupted            raised inside flow code by the worker; `except Exception` lets it pass
    ├── RunCancelled
    └── RunTimedOut
"""

from __future__ import annotations

from penstock.events.errors import PenstockError


class FlowError(PenstockError):
    """Something about a flow, a task or a run."""


class FlowDefinitionError(FlowError, TypeError):
    """A flow or a task is declared in a way that can never run."""


class FlowLoadError(FlowError):
    """A module of flows cannot be used.

    module: as it was named.  reason: what happened.
    """

    def __init__(self, module: str, reason: str) -> None:
        self.module, self.reason = module, reason
        super().__init__(f"{module}: {reason}")


class ParameterError(FlowError, ValueError):
    """The parameters given do not fit the flow.

    flow: its name.  problems: one sentence for each parameter at fault.
    """

    def __init__(self, flow: str, problems: list[str]) -> None:
        self.flow, self.problems = flow, problems
        super().__init__(f"parameters of flow {flow!r}: " + "; ".join(problems))


class TaskResultError(FlowError, TypeError):
    """A result cannot be kept as JSON, so that it could not be given back when the run is resumed."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(
            f"the result of {name!r} cannot be kept: {reason}. Return JSON values, dataclasses, pydantic models,"
            " datetimes, or a reference to where the value lies"
        )


class NotInRunError(FlowError, RuntimeError):
    """A run was asked for where there is none."""


class TaskTimeoutError(FlowError, TimeoutError):
    """A task took longer than it may."""

    def __init__(self, name: str, timeout: float) -> None:
        self.name, self.timeout = name, timeout
        super().__init__(f"task {name!r} took longer than its timeout of {timeout:g} s")


class FlowTimeoutError(FlowError, TimeoutError):
    """A flow took longer than it may."""

    def __init__(self, name: str, timeout: float) -> None:
        self.name, self.timeout = name, timeout
        super().__init__(f"flow {name!r} took longer than its timeout of {timeout:g} s")


class RunInterrupted(BaseException):
    """The worker ends the run; code may clean up (`finally`), and must let it pass.

    Like KeyboardInterrupt it is no error of the code that it is raised in.
    """


class RunCancelled(RunInterrupted):
    """Somebody cancelled the run."""


class RunTimedOut(RunInterrupted):
    """The run took longer than its flow's `timeout`."""
