"""One context manager for each service: the one that was given by URL, else one of our own, stopped at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from tests.support.services.kafka import GivenKafka, Kafka
from tests.support.services.mosquitto import GivenMosquitto, Mosquitto
from tests.support.services.postgres import GivenPostgres, PostgresServer
from tests.support.services.process import Service
from tests.support.services.redis import GivenRedis, RedisServer

S = TypeVar("S", bound="Service | Kafka")

REDIS, POSTGRES = "PENSTOCK_TEST_REDIS_URL", "PENSTOCK_TEST_DATABASE_URL"
KAFKA, MQTT = "PENSTOCK_TEST_KAFKA", "PENSTOCK_TEST_MQTT_URL"


@contextmanager
def provide_redis() -> Iterator[RedisServer | GivenRedis]:
    """Redis, running."""
    if given := os.environ.get(REDIS):
        yield GivenRedis(given)
        return
    with _own(RedisServer()) as server:
        yield server


@contextmanager
def provide_postgres() -> Iterator[PostgresServer | GivenPostgres]:
    """PostgreSQL, running."""
    if given := os.environ.get(POSTGRES):
        yield GivenPostgres(given)
        return
    with _own(PostgresServer()) as server:
        yield server


@contextmanager
def provide_kafka() -> Iterator[Kafka | GivenKafka]:
    """Kafka, running; our own has one node."""
    if given := os.environ.get(KAFKA):
        yield GivenKafka(given)
        return
    with _own(Kafka()) as server:
        yield server


@contextmanager
def provide_kafka_cluster() -> Iterator[Kafka]:
    """Three nodes, running; never given, since tests kill single nodes of it."""
    with _own(Kafka(size=3)) as cluster:
        yield cluster


@contextmanager
def provide_mosquitto() -> Iterator[Mosquitto | GivenMosquitto]:
    """mosquitto, running."""
    if given := os.environ.get(MQTT):
        yield GivenMosquitto(given)
        return
    with _own(Mosquitto()) as server:
        yield server


@contextmanager
def _own(server: S) -> Iterator[S]:
    try:
        server.start()
        yield server
    finally:
        server.kill()  # its data goes too: no need for a farewell
