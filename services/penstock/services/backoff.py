"""Capped exponential back-off with jitter: how long to wait before trying once more."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th pause lies between half and the whole of base * 2^(n-1), and never above `cap`.

    attempts: tries in all, the first one included.
    The lower half is kept so that a retry is never immediate; the upper half is random, so that those that failed
    together do not come back together.  Source: "Exponential Backoff And Jitter" (equal jitter), AWS Architecture
    Blog, 2015.
    """

    attempts: int = 5
    base: timedelta = timedelta(milliseconds=100)
    cap: timedelta = timedelta(seconds=30)

    def pause(self, failures: int, draw: float | None = None) -> timedelta:
        """The pause after `failures` failed tries (>= 1).  draw: 0 <= draw < 1, drawn here where none is given."""
        whole: timedelta = min(self.cap, self.base * int(2 ** min(failures - 1, 20)))
        return whole / 2 * (1 + (random.random() if draw is None else draw))

    def exhausted(self, failures: int) -> bool:
        """Whether no try is left after `failures` failed ones."""
        return failures >= self.attempts
