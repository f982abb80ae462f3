"""What follows from the end of a try: pure, so that every case can be tried without a process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from penstock.flows.states import State
from penstock.services.backoff import Backoff
from penstock.services.worker.claims import ClaimedRun
from penstock.services.worker.frames import Finished, FlowInfo

# Before a run whose process died is tried again; what kills processes should not do it in a tight loop.
AFTER_CRASH = Backoff(base=timedelta(milliseconds=200), cap=timedelta(seconds=30))
_RETRIED = (State.FAILED, State.TIMED_OUT)  # by the flow's own policy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of the run. state: how this try ended.  wait: until the next try; None: there is none."""

    state: State
    wait: timedelta | None = None

    @property
    def crashed_and_goes_on(self) -> bool:
        """Its process died, and there are attempts left."""
        return self.state is State.CRASHED and self.wait is not None


def judge(finished: Finished, flow: FlowInfo, claimed: ClaimedRun, attempts: int, draw: float) -> Outcome:
    """What follows from `finished`.

    attempts: claims that may die (settings.run_attempts).  draw: a random number in [0, 1), for the jitter.
    """
    state = State(finished.state)
    if state in _RETRIED and finished.retry and claimed.retries < flow.retries:
        return Outcome(state, retry_wait(flow, claimed.retries, draw))
    if state is State.CRASHED and claimed.attempt < attempts:
        return Outcome(state, AFTER_CRASH.pause(claimed.attempt, draw))
    return Outcome(state)


def retry_wait(flow: FlowInfo, retries: int, draw: float) -> timedelta:
    """The wait before the next retry of a run that has had `retries` of them."""
    delay = flow.retry_delays[min(retries, len(flow.retry_delays) - 1)] if flow.retry_delays else 0.0
    return timedelta(seconds=delay * (1 + flow.retry_jitter * draw))
