"""What a firing is told (facts) and what it asks for (commands). Frozen, with a JSON form each."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from penstock.events.instants import Instant

Status: TypeAlias = Literal[
    "queued", "running", "waiting", "completed", "failed", "rejected", "dead_lettered", "cancelled"
]


class Fact(msgspec.Struct, frozen=True, tag=True):
    """Something happened to a firing."""


class Started(Fact, frozen=True, tag=True):
    """The decision is committed: begin."""


class StepSucceeded(Fact, frozen=True, tag=True):
    """A run was accepted (result: {run_id}), or a message delivered."""

    step: str
    result: Any = None


class StepFailed(Fact, frozen=True, tag=True):
    """A command could not be carried out. `attempt`: as in the command; an answer to an earlier one changes nothing."""

    step: str
    error: str
    retryable: bool = False
    attempt: int = 1


class ApprovalDecided(Fact, frozen=True, tag=True):
    """People, or the timeout, decided. `by`: who, None for the timeout; `at`: when."""

    step: str
    outcome: Literal["approved", "rejected", "expired", "void"]
    by: str | None = None
    at: Instant | None = None
    comment: str = ""


class RunEnded(Fact, frozen=True, tag=True):
    """A run reached its end. `state`: completed, failed, crashed, timed_out or cancelled; run_id "": not told."""

    step: str
    state: str
    result: Any = None
    run_id: str = ""


class TimerDue(Fact, frozen=True, tag=True):
    """A timer that the firing asked for has run out."""

    step: str


class Redriven(Fact, frozen=True, tag=True):
    """Somebody has a dead-lettered firing tried again, from the step that failed.

    redrives: how often that had been done before; a repeat of the same wish changes nothing.
    """

    redrives: int = 0


AnyFact: TypeAlias = Started | StepSucceeded | StepFailed | ApprovalDecided | RunEnded | TimerDue | Redriven


class Command(msgspec.Struct, frozen=True, tag=True):
    """Something for the services to do. Ids are derived: a repeated command is the same one."""


class StartRun(Command, frozen=True, tag=True):
    """Create a run. `parameters` may hold placeholders of secrets with this `nonce`, revealed by whoever runs it.

    waits: the step goes on when the run has ended (RunEnded).
    """

    step: str
    run_id: str
    flow: str
    parameters: dict[str, Any]
    pool: str | None
    nonce: str
    attempt: int
    correlationid: str
    causationid: str | None
    traceparent: str | None
    hops: int
    waits: bool = False
    queue: str = "default"
    priority: int = 0


class Notify(Command, frozen=True, tag=True):
    """Deliver a message, with retries: `delay`, `max_delay` in microseconds. Secrets as in StartRun."""

    step: str
    notification_id: str
    channel: str
    text: str
    title: str | None
    nonce: str
    attempts: int
    delay: int
    backoff: float
    max_delay: int


class RequestApproval(Command, frozen=True, tag=True):
    """Ask people. `deadline`: until when; `shown`: the digest of what they are shown."""

    step: str
    approval_id: str
    ask: str
    approvers: tuple[str, ...]
    needs: int
    four_eyes: bool
    timeout: int
    deadline: Instant
    on_timeout: Literal["reject", "approve"]
    shown: str


class EmitEvent(Command, frozen=True, tag=True):
    """Put an event on the bus: a CloudEvents JSON object."""

    step: str
    event: dict[str, Any]


class SetTimer(Command, frozen=True, tag=True):
    """Tell the firing TimerDue(step) at `at` or later; it sorts out itself whether that still matters."""

    at: Instant
    step: str


class DeadLetter(Command, frozen=True, tag=True):
    """Keep the firing for a person to look at."""

    step: str
    reason: str


class Finished(Command, frozen=True, tag=True):
    """The firing has ended; always the last command."""

    status: Status


AnyCommand: TypeAlias = StartRun | Notify | RequestApproval | EmitEvent | SetTimer | DeadLetter | Finished
