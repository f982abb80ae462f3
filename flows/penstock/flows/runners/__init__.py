"""Task runners: where the bodies of submitted tasks run.

A submitted call is carried out by a thread of the flow's process, which keeps its journal, cache, retries and hooks;
what a runner chooses is where that thread has the task's function run, and how many at once.
"""

from penstock.flows.runners.dask import DaskRunner
from penstock.flows.runners.port import Crew, TaskRunner
from penstock.flows.runners.processes import ProcessRunner
from penstock.flows.runners.ray import RayRunner
from penstock.flows.runners.threads import ThreadRunner

__all__ = ["Crew", "DaskRunner", "ProcessRunner", "RayRunner", "TaskRunner", "ThreadRunner"]
