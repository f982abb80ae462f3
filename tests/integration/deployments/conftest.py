"""A migrated database of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.runs import migrated

from penstock.services.database import Database


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    """An empty database with all tables; once PostgreSQL, once SQLite."""
    async with migrated(any_database_url) as found:
        yield found
