"""The same tests for both adapters: `side` knows what the port leaves out (restarting, deleting a topic, trimming)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition as WirePartition
from tests.support.services.kafka import Kafka
from tests.support.services.redis import RedisServer

from penstock.events.bus import Bus, TopicPartition
from penstock.services.bus import BusAddress, connect, parse_address


@dataclass
class Side:
    """One kind of bus: its URL, its server, and what only its own tools can do."""

    url: str
    server: Kafka | RedisServer

    @property
    def address(self) -> BusAddress:
        return parse_address(self.url)

    async def restart(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def trim(self, bus: Bus, partition: TopicPartition, below: int) -> None:
        """Really remove what lies below; on Kafka that is retention's affair, so an administrator does it."""
        if self.address.kind == "redis":
            await bus.trim(partition, below)
            return
        admin = await self._admin()
        wire = WirePartition(self.address.prefix + partition.topic, partition.partition)
        await admin.delete_records({wire: RecordsToDelete(before_offset=below)})
        await admin.close()

    async def delete_topic(self, name: str) -> None:
        if self.address.kind == "redis":
            with redis.Redis.from_url(self.address.server) as client:
                for key in client.scan_iter(f"{self.address.prefix}{name}*"):
                    client.delete(key)
            return
        admin = await self._admin()
        await admin.delete_topics([self.address.prefix + name])
        await admin.close()

    async def _admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address.server)
        await admin.start()
        return admin


@pytest.fixture(params=["kafka", "redis"])
def side(request: pytest.FixtureRequest) -> Side:
    url = request.getfixturevalue(f"{request.param}_bus_url")
    server = request.getfixturevalue("kafka" if request.param == "kafka" else "redis_server")
    return Side(url, server)


@pytest.fixture
async def bus(side: Side) -> AsyncIterator[Bus]:
    connected = await connect(side.url)
    yield connected
    await connected.close()


@pytest.fixture
async def another_bus(side: Side) -> AsyncIterator[Bus]:
    """The same server under another prefix."""
    connected = await connect(side.url.replace("prefix=", "prefix=other"))
    yield connected
    await connected.close()
