"""The test services themselves: they answer, and what they acknowledged survives SIGKILL and a restart."""

from __future__ import annotations

import time

import asyncpg
import redis
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.support.services.kafka import Kafka, brokers
from tests.support.services.mosquitto import Mosquitto, answers
from tests.support.services.postgres import PostgresServer
from tests.support.services.redis import RedisServer


def test_redis_keeps_what_it_acknowledged_through_sigkill(redis_server: RedisServer, redis_url: str) -> None:
    port = redis_server.port
    with redis.Redis.from_url(redis_url) as client:
        client.set("a", "1")
    redis_server.kill()
    redis_server.start()
    assert redis_server.port == port
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("a") == b"1"


async def test_postgres_keeps_what_it_committed_through_sigkill(postgres: PostgresServer, postgres_url: str) -> None:
    plain = postgres_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(plain)
    await connection.execute("CREATE TABLE a AS SELECT 7 AS b")
    postgres.kill()
    postgres.start()
    connection.terminate()
    connection = await asyncpg.connect(plain)
    assert await connection.fetchval("SELECT b FROM a") == 7
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()


async def test_kafka_keeps_what_it_acknowledged_through_a_restart(
    kafka: Kafka, kafka_bus_url: str, prefix: str
) -> None:
    topic = f"{prefix}.a"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    for attempt in range(2):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
        await producer.start()
        sent = await producer.send_and_wait(topic, b"x")
        await producer.stop()
        assert sent.offset == attempt
        kafka.restart()


def test_a_kafka_cluster_goes_on_without_one_of_its_nodes(kafka_cluster: Kafka) -> None:
    assert brokers(kafka_cluster.bootstrap) == 3
    kafka_cluster.nodes[2].kill()
    patience = time.monotonic() + 30  # the nodes left may first have to choose another controller among them
    while brokers(kafka_cluster.nodes[0].url) < 2:
        assert time.monotonic() < patience
    kafka_cluster.start()
    assert brokers(kafka_cluster.bootstrap) == 3


def test_mosquitto_answers_again_after_a_restart(mosquitto: Mosquitto) -> None:
    mosquitto.restart()
    assert answers("127.0.0.1", mosquitto.port)
