"""Three Kafka nodes: each record lies on three, and one of them may die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.support.bus import publish, read, read_all
from tests.support.scale import scaled
from tests.support.services.kafka import Kafka

from penstock.events.bus import Bus, Outgoing, TopicPartition
from penstock.services.bus import connect

TOPIC = "penstock.test"
PARTITIONS = 6


@pytest.fixture
async def bus(kafka_cluster: Kafka, prefix: str) -> AsyncIterator[Bus]:
    kafka_cluster.start()
    connected = await connect(f"{kafka_cluster.url}?prefix={prefix}.")
    yield connected
    await connected.close()


async def test_topics_are_kept_three_times_and_acknowledged_twice(bus: Bus, kafka_cluster: Kafka, prefix: str) -> None:
    await bus.ensure_topic(TOPIC, PARTITIONS)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    await admin.start()
    (topic,) = await admin.describe_topics([f"{prefix}.{TOPIC}"])
    answer: Any
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, f"{prefix}.{TOPIC}")])
    await admin.close()
    assert all(len(partition["replicas"]) == 3 for partition in topic["partitions"])
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert settings["min.insync.replicas"] == "2"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["message.timestamp.type"] == "LogAppendTime"


@pytest.mark.parametrize("node", range(scaled(3)))
async def test_the_death_of_any_node_stops_nothing_and_loses_nothing(bus: Bus, kafka_cluster: Kafka, node: int) -> None:
    await bus.ensure_topic(TOPIC, PARTITIONS)
    where = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    reader = bus.reader()
    for partition in where:
        await reader.take(partition, 0)
    await publish(bus, [Outgoing(TOPIC, b"%d" % number, partition=number % PARTITIONS) for number in range(600)])
    before = await read(reader, 600)
    await asyncio.to_thread(kafka_cluster.nodes[node].kill)
    await publish(bus, [Outgoing(TOPIC, b"%d" % number, partition=number % PARTITIONS) for number in range(600, 1_200)])
    after = await read(reader, 600, within=30)
    await reader.close()
    stored = {partition: await read_all(bus, partition) for partition in where}
    assert stored == {partition: before[partition] + after[partition] for partition in where}
    await asyncio.to_thread(kafka_cluster.start)
