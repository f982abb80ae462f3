"""A rig on each pair: PostgreSQL with Kafka, SQLite with Redis streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.rig import Rig, open_rig


@pytest.fixture(params=["production", "embedded"])
async def rig(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """An engine's surroundings, empty."""
    production = request.param == "production"
    database_url = request.getfixturevalue("postgres_url" if production else "sqlite_url")
    bus_url = request.getfixturevalue("kafka_bus_url" if production else "redis_bus_url")
    async with open_rig(
        database_url=database_url, bus_url=bus_url, redis_url=redis_url, folder=tmp_path, event_partitions=3
    ) as made:
        yield made
