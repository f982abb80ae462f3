"""Child processes are tried on both event loops: asyncio's own, and uvloop, which the services use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    """Both for tests of children; what the services use for those of places; what is usual for the others."""
    if item.path.name in ("test_places.py", "test_pods.py"):
        return {"uvloop": uvloop.new_event_loop}
    if item.path.name != "test_children.py":
        return None
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
