"""The scheduler: `penstock.schedule.fired` at each due time of each schedule, once, however many schedulers run."""

from penstock.services.scheduler.due import Passed, Spec, next_due, passed
from penstock.services.scheduler.service import SchedulerService

__all__ = ["Passed", "SchedulerService", "Spec", "next_due", "passed"]
