"""Fixtures for all tests: real services, each started once a run when a test first asks for it.

A service can be given instead: PENSTOCK_TEST_REDIS_URL, PENSTOCK_TEST_DATABASE_URL, PENSTOCK_TEST_KAFKA,
PENSTOCK_TEST_MQTT_URL (Redis: the database that it names is emptied). A service that is neither given nor to be had
ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from tests.support.services.kafka import GivenKafka, Kafka
from tests.support.services.mosquitto import GivenMosquitto, Mosquitto
from tests.support.services.postgres import GivenPostgres, PostgresServer
from tests.support.services.process import ServiceMissingError
from tests.support.services.provide import (
    provide_kafka,
    provide_kafka_cluster,
    provide_mosquitto,
    provide_postgres,
    provide_redis,
)
from tests.support.services.redis import GivenRedis, RedisServer


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[None]:
    """A missing service ends the run with one line; it never skips."""
    try:
        return (yield)
    except ServiceMissingError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(autouse=True)
def logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that sets up logging does so for its test alone: the standard error that it writes to ends with it."""
    configure = structlog.configure
    monkeypatch.setattr(
        structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False})
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | GivenRedis]:
    """Redis. `url`, `flushall()`; start, stop, kill, restart."""
    with provide_redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer | GivenPostgres]:
    """PostgreSQL. `url`, `create_database()`, `drop_database(url)`; start, stop, kill, restart."""
    with provide_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka | GivenKafka]:
    """Kafka with one node. `url`, `bootstrap`; start, stop, kill, restart (in an async test: through a thread)."""
    with provide_kafka() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Kafka]:
    """Kafka with three nodes, always our own; each of `nodes` can be stopped and killed too."""
    with provide_kafka_cluster() as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto | GivenMosquitto]:
    """An MQTT broker. `url`, `port`; start, stop, kill, restart."""
    with provide_mosquitto() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """What keeps the topics and keys of one test apart: letters and digits."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
def postgres_url(postgres: PostgresServer | GivenPostgres) -> Iterator[str]:
    """A new, empty PostgreSQL database."""
    url = postgres.create_database()
    yield url
    postgres.start()
    postgres.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new, empty SQLite database."""
    return f"sqlite+aiosqlite:///{tmp_path / 'penstock.db'}"


@pytest.fixture(params=["postgres", "sqlite"])
def any_database_url(request: pytest.FixtureRequest) -> str:
    """A new, empty database; the test runs once on each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


database_url = any_database_url


@pytest.fixture
def redis_url(redis_server: RedisServer | GivenRedis) -> Iterator[str]:
    """An empty Redis."""
    redis_server.start()
    redis_server.flushall()
    yield redis_server.url
    redis_server.start()


@pytest.fixture
def redis_bus_url(redis_url: str, prefix: str) -> str:
    """A bus on Redis streams, empty."""
    return f"{redis_url}?prefix={prefix}:"


@pytest.fixture
def kafka_bus_url(kafka: Kafka | GivenKafka, prefix: str) -> Iterator[str]:
    """A bus on Kafka, empty; its topics are removed afterwards."""
    kafka.start()
    yield f"{kafka.url}?prefix={prefix}."
    kafka.start()
    kafka.delete_topics(f"{prefix}.")


@pytest.fixture(params=["kafka", "redis"])
def any_bus_url(request: pytest.FixtureRequest) -> str:
    """An empty bus; the test runs once on each kind."""
    return str(request.getfixturevalue(f"{request.param}_bus_url"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own PENSTOCK_* settings do not reach the tests."""
    for name in os.environ:
        if name.startswith("PENSTOCK_") and not name.startswith("PENSTOCK_TEST_"):
            monkeypatch.delenv(name)
