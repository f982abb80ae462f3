"""How much of a heavy test is run: SCALE=1 is all of it (`make test-full`), 0.2 what `make test` does."""

from __future__ import annotations

import os


def scaled(n: int, *, at_least: int = 1) -> int:
    """The share of `n` that this run's SCALE asks for, never below `at_least`."""
    return max(at_least, round(n * float(os.environ.get("SCALE") or "0.2")))
