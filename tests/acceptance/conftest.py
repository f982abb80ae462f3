"""A fleet of processes on real Kafka, PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.fleet import Fleet, open_fleet


@pytest.fixture
async def fleet(postgres_url: str, kafka_bus_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """No process yet; `start` and `start_all` add them."""
    async with open_fleet(
        database_url=postgres_url, bus_url=kafka_bus_url, redis_url=redis_url, folder=tmp_path
    ) as made:
        yield made
