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


@pytest.fixture(params=["production", "embedded"])
def urls(request: pytest.FixtureRequest, redis_url: str) -> dict[str, str]:
    """Both pairs: PostgreSQL with Kafka, SQLite with Redis streams; each empty."""
    production = request.param == "production"
    return {
        "database_url": request.getfixturevalue("postgres_url" if production else "sqlite_url"),
        "bus_url": request.getfixturevalue("kafka_bus_url" if production else "redis_bus_url"),
        "redis_url": redis_url,
    }
