"""Flows: what a user's program imports. Ordinary functions, made durable by a worker.

    from penstock.flows import flow, task

    @task(retries=3)
    def fetch(truck: str) -> float: ...

    @flow
    def reroute(truck: str) -> str: ...

`reroute("truck/7")` runs as plain Python; on a worker the same code is recorded call by call.
"""

from penstock.flows.answering import Question, answering
from penstock.flows.approving import Approved, approve, approve_sync
from penstock.flows.artifacts import artifact
from penstock.flows.awaiting import wait_for_event, wait_for_event_sync
from penstock.flows.caching import INPUTS, SOURCE, Cache, by_key
from penstock.flows.context import RunContext, get_logger, get_run_context
from penstock.flows.emitting import aemit, emit
from penstock.flows.errors import (
    ApprovalExpired,
    ApprovalFormError,
    ApprovalRejected,
    ArtifactError,
    CallError,
    CodeChangedError,
    DeployError,
    EventTimeoutError,
    FlowDefinitionError,
    FlowError,
    FlowLoadError,
    FlowTimeoutError,
    FutureError,
    NotInRunError,
    ParameterError,
    ResultMissingError,
    ResultStoreError,
    RunCancelled,
    RunInterrupted,
    RunnerError,
    RunTimedOut,
    Suspended,
    TaskResultError,
    TaskTimeoutError,
    WaitError,
)
from penstock.flows.flow import Flow, flow
from penstock.flows.futures import FutureList, TaskFuture, as_completed, unmapped, wait
from penstock.flows.hooks import Moment
from penstock.flows.recorded import now, random, uuid4
from penstock.flows.retries import Backoff, exponential
from penstock.flows.runners import Crew, DaskRunner, ProcessRunner, RayRunner, TaskRunner, ThreadRunner
from penstock.flows.serializers import Serializer
from penstock.flows.states import State, can_become
from penstock.flows.store import FsspecStore, LocalStore, ResultStore
from penstock.flows.task import Task, task
from penstock.flows.waits import sleep, sleep_sync

__all__ = [
    "INPUTS",
    "SOURCE",
    "ApprovalExpired",
    "ApprovalFormError",
    "ApprovalRejected",
    "Approved",
    "ArtifactError",
    "Backoff",
    "Cache",
    "CallError",
    "CodeChangedError",
    "Crew",
    "DaskRunner",
    "DeployError",
    "EventTimeoutError",
    "Flow",
    "FlowDefinitionError",
    "FlowError",
    "FlowLoadError",
    "FlowTimeoutError",
    "FsspecStore",
    "FutureError",
    "FutureList",
    "LocalStore",
    "Moment",
    "NotInRunError",
    "ParameterError",
    "ProcessRunner",
    "Question",
    "RayRunner",
    "ResultMissingError",
    "ResultStore",
    "ResultStoreError",
    "RunCancelled",
    "RunContext",
    "RunInterrupted",
    "RunTimedOut",
    "RunnerError",
    "Serializer",
    "State",
    "Suspended",
    "Task",
    "TaskFuture",
    "TaskResultError",
    "TaskRunner",
    "TaskTimeoutError",
    "ThreadRunner",
    "WaitError",
    "aemit",
    "answering",
    "approve",
    "approve_sync",
    "artifact",
    "as_completed",
    "by_key",
    "can_become",
    "emit",
    "exponential",
    "flow",
    "get_logger",
    "get_run_context",
    "now",
    "random",
    "sleep",
    "sleep_sync",
    "task",
    "unmapped",
    "uuid4",
    "wait",
    "wait_for_event",
    "wait_for_event_sync",
]
