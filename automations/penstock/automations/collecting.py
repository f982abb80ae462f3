"""Loading makes a million small objects that stay: looking for garbage among them again and again takes most time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_waits() -> Iterator[None]:
    """No search for cyclic garbage in this process meanwhile; whatever loses its last reference is freed as always."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
