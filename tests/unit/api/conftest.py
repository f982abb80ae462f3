from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.api_harness import Harness, harness


@pytest.fixture
async def api(sqlite_url: str) -> AsyncIterator[Harness]:
    """An API on SQLite and a fake bus."""
    async with harness(sqlite_url) as found:
        yield found
