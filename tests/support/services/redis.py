"""Redis for the tests: a real server on a free port, every write on disk before it is acknowledged."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import redis
from tests.support.services.install import find, on_path
from tests.support.services.process import Given, Service


class RedisServer(Service):
    """An own redis-server (or valkey-server)."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def ready(self) -> bool:
        return answers(self.url)

    def flushall(self) -> None:
        """Remove everything in it."""
        flush(self.url)

    def _command(self, folder: Path) -> Sequence[str]:
        program = find(
            on_path("redis-server", "valkey-server"),
            what="a redis-server",
            packages=["redis-server"],
            variable="PENSTOCK_TEST_REDIS_URL",
        )
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), *durable]


class GivenRedis(Given):
    """The server behind PENSTOCK_TEST_REDIS_URL; the database that it names is emptied by the tests."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self.url, self.port = url, urlsplit(url).port or 6379

    def flushall(self) -> None:
        """Remove everything in the database that the URL names."""
        flush(self.url)


def flush(url: str) -> None:
    """Empty one database of a server."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def answers(url: str) -> bool:
    """Whether a server answers PING; one that still loads its data does not count."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=1) as line:
            line.sendall(b"PING\r\n")
            return line.recv(64).startswith(b"+PONG")
    except OSError:
        return False
