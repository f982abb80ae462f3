"""The types of Penstock's own events. They travel on `penstock.system`; every other door refuses them.

Rules may react to all of them. What each carries under `data` grows, and never changes its meaning.
"""

from __future__ import annotations

from typing import Final

_RUN = "penstock.run."
_TASK = "penstock.task."

RUN_SCHEDULED: Final = _RUN + "scheduled"  # subject: the run's id, here and below
RUN_PENDING: Final = _RUN + "pending"
RUN_STARTED: Final = _RUN + "started"
RUN_WAITING: Final = _RUN + "waiting"
RUN_PAUSED: Final = _RUN + "paused"
RUN_RESUMED: Final = _RUN + "resumed"
RUN_COMPLETED: Final = _RUN + "completed"
RUN_FAILED: Final = _RUN + "failed"
RUN_CRASHED: Final = _RUN + "crashed"
RUN_CANCELLED: Final = _RUN + "cancelled"
RUN_TIMED_OUT: Final = _RUN + "timed_out"
RUN_RETRYING: Final = _RUN + "retrying"

TASK_FAILED: Final = _TASK + "failed"
TASK_COMPLETED: Final = _TASK + "completed"  # only where it is asked for

SCHEDULE_FIRED: Final = "penstock.schedule.fired"  # subject: the schedule's name; data: due, missed
SCHEDULE_SKIPPED: Final = "penstock.schedule.skipped"
SCHEDULE_MISSED: Final = "penstock.schedule.missed"  # data: first, before, count, exact

APPROVAL_REQUESTED: Final = "penstock.approval.requested"
APPROVAL_DECIDED: Final = "penstock.approval.decided"
APPROVAL_REMINDED: Final = "penstock.approval.reminded"
APPROVAL_ESCALATED: Final = "penstock.approval.escalated"
APPROVAL_EXPIRED: Final = "penstock.approval.expired"

AUTOMATION_FIRED: Final = "penstock.automation.fired"  # subject: the automation's name
AUTOMATION_RESOLVED: Final = "penstock.automation.resolved"
AUTOMATION_SUPPRESSED: Final = "penstock.automation.suppressed"
AUTOMATION_CHANGED: Final = "penstock.automation.changed"
AUTOMATION_STORM: Final = "penstock.automation.storm"
AUTOMATION_LOOPED: Final = "penstock.automation.looped"  # a chain used up its hops; told once for each rule

ACTION_SUCCEEDED: Final = "penstock.action.succeeded"
ACTION_FAILED: Final = "penstock.action.failed"
ACTION_DEAD_LETTERED: Final = "penstock.action.dead_lettered"

WORKER_ONLINE: Final = "penstock.worker.online"
WORKER_OFFLINE: Final = "penstock.worker.offline"

LIMIT_REACHED: Final = "penstock.limit.reached"
EVENT_LATE: Final = "penstock.event.late"
ENGINE_GAP: Final = "penstock.engine.gap"  # records were gone before they were read; data: both offsets

ALL: Final[frozenset[str]] = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and not name.startswith("_")
)
"""Every one of them."""
