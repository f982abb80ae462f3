"""Flows: what a user's program imports. Ordinary functions, made durable by a worker.

    from penstock.flows import flow, task

    @task(retries=3)
    def fetch(truck: str) -> float: ...

    @flow
    def reroute(truck: str) -> str: ...

`reroute("truck/7")` runs as plain Python; on a worker the same code is recorded call by call.
"""

from penstock.flows.context import RunContext, get_logger, get_run_context
from penstock.flows.errors import (
    FlowDefinitionError,
    FlowError,
    FlowLoadError,
    FlowTimeoutError,
    NotInRunError,
    ParameterError,
    RunCancelled,
    RunInterrupted,
    RunTimedOut,
    TaskResultError,
    TaskTimeoutError,
)
from penstock.flows.flow import Flow, flow
from penstock.flows.retries import Backoff, exponential
from penstock.flows.states import State, can_become
from penstock.flows.task import Task, task

__all__ = [
    "Backoff",
    "Flow",
    "FlowDefinitionError",
    "FlowError",
    "FlowLoadError",
    "FlowTimeoutError",
    "NotInRunError",
    "ParameterError",
    "RunCancelled",
    "RunContext",
    "RunInterrupted",
    "RunTimedOut",
    "State",
    "Task",
    "TaskResultError",
    "TaskTimeoutError",
    "can_become",
    "exponential",
    "flow",
    "get_logger",
    "get_run_context",
    "task",
]
