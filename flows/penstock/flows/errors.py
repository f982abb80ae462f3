"""What can go wrong in flows, by name.

PenstockError
└── FlowError
    ├── FlowDefinitionError   a decorator was given something that can never run
    ├── DeployError           a flow cannot be deployed or served as it was asked for
    ├── FlowLoadError         a flow module does not import, or two flows share a name
    ├── ParameterError        the parameters of a run do not fit the flow's signature
    ├── TaskResultError       a result cannot be kept as JSON
    ├── NotInRunError         something was asked of a run, outside of one
    ├── ResultMissingError    the result store has lost what the journal refers to
    ├── ResultStoreError      a result store cannot be used as it is configured
    ├── FutureError           a future is asked for in a way that could never be answered
    ├── CallError             a task is called where it cannot keep its promise
    ├── CodeChangedError      a run is resumed with other code than it began with, and its flow refuses that
    ├── WaitError             what a run wants to wait for cannot be waited for
    ├── ApprovalRejected      a person said no
    │   └── ApprovalExpired   nobody decided in time (a TimeoutError)
    ├── ApprovalFormError     what a person filled in is not what the flow's form takes
    ├── EventTimeoutError     no event came in time (a TimeoutError)
    ├── ArtifactError         an artifact cannot be shown
    ├── RunnerError           a task runner cannot be started
    ├── TaskTimeoutError      a task took longer than its `timeout` (a TimeoutError)
    └── FlowTimeoutError      a flow took longer than its `timeout` (a TimeoutError)
BaseException
└── RunInterrupted            raised inside flow code, not by it; `except Exception` lets it pass
    ├── RunCancelled
    ├── RunTimedOut
    └── Suspended             the run waits; its code leaves the process and is replayed later
"""

from __future__ import annotations

from datetime import datetime

from penstock.events.errors import PenstockError


class FlowError(PenstockError):
    """Something about a flow, a task or a run."""


class FlowDefinitionError(FlowError, TypeError):
    """A flow or a task is declared in a way that can never run."""


class DeployError(FlowError):
    """A flow cannot be deployed or served as it was asked for."""


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


class ResultMissingError(FlowError, LookupError):
    """A result lies in a store, and is not there any more, or not as it was written.

    key: its name in the store.  store: the URL of the store.
    """

    def __init__(self, key: str, store: str, reason: str) -> None:
        self.key, self.store = key, store
        super().__init__(
            f"the result {key} in {store} {reason}. All workers need the same store (PENSTOCK_RESULTS, for several"
            " machines an s3:// URL); a run that has lost results can only be started anew"
        )


class ResultStoreError(FlowError, ValueError):
    """A result store is named by a URL that cannot be used."""


class FutureError(FlowError, RuntimeError):
    """A future is asked for its result in a way that could never be answered."""


class CallError(FlowError, RuntimeError):
    """A task is called where it cannot keep its promise."""


class ArtifactError(FlowError, ValueError):
    """An artifact is of a form that cannot be shown."""


class RunnerError(FlowError, RuntimeError):
    """A task runner cannot be started."""


class CodeChangedError(FlowError, RuntimeError):
    """A run is resumed with other code than it began with.

    changes: one sentence each.
    """

    def __init__(self, flow: str, changes: list[str]) -> None:
        self.flow, self.changes = flow, changes
        super().__init__(
            f"the code of flow {flow!r} changed under this run: {'; '.join(changes)}. Let it go on with the new code"
            ' (@flow(on_changed_code="continue")), let it begin anew ("restart"), or bring the old code back'
        )


class WaitError(FlowError, RuntimeError):
    """What a run wants to wait for cannot be waited for, here or at all."""


class ApprovalRejected(FlowError):
    """A person said no.

    ask: what was asked.  by: who decided ("user/ann"); None: nobody did.  at: when.  comment: why, "" where not said.
    """

    def __init__(self, ask: str, by: str | None, at: datetime, comment: str = "", told: str = "") -> None:
        self.ask, self.by, self.at, self.comment = ask, by, at, comment
        why = f": {comment}" if comment else ""
        super().__init__(told or f"{ask!r} was rejected by {by} at {at:%Y-%m-%d %H:%M:%S} UTC{why}")


class ApprovalExpired(ApprovalRejected, TimeoutError):
    """Nobody decided in time, and `on_timeout` is "reject"; or what was asked is void."""


class ApprovalFormError(FlowError, ValueError):
    """What a person filled in does not fit the flow's form: its JSON Schema, or a validator of its own."""


class EventTimeoutError(FlowError, TimeoutError):
    """No event came in time.  type: as asked for."""

    def __init__(self, type_: str, timeout: float) -> None:
        self.type, self.timeout = type_, timeout
        super().__init__(f"no event {type_} that matches came within {timeout:g} s")


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
    """The run ends or leaves this process; code may clean up (`finally`), and must let it pass.

    Like KeyboardInterrupt it is no error of the code that it is raised in.
    """


class RunCancelled(RunInterrupted):
    """Somebody cancelled the run."""


class RunTimedOut(RunInterrupted):
    """The run took longer than its flow's `timeout`."""


class Suspended(RunInterrupted):
    """The run waits for something outside; it leaves its process, and is replayed when that has happened.

    Raised by what waits (`sleep`, an approval, an event), journalled under `key` by whoever ends the waiting.
    reason: one line for people.  until: the instant (µs) at which it goes on by itself; None: something has to happen.
    paused: a person is asked; else it waits for an event, a time or a limit.
    """

    def __init__(self, reason: str, key: str = "", until: int | None = None, *, paused: bool = False) -> None:
        self.reason, self.key, self.until, self.paused = reason, key, until, paused
        super().__init__(reason)
