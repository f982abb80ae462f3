"""A connection to a Kafka cluster, one request at a time: who leads a partition, what a topic's id is.

aiokafka's client speaks the protocol and reconnects; this adds what it leaves to its callers (retries within a bound,
our errors) and the one request that it lacks: topic ids came with version 10 of Metadata, it stops at 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any, TypeVar
from uuid import UUID

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition as WirePartition

from penstock.events.errors import BusError, BusUnavailableError

T = TypeVar("T")

BACKOFF = 0.1  # seconds between attempts
ANSWER_WITHIN = 15.0  # seconds for a question to the cluster, retries included: a restart fits in
_REQUEST_MS = 10_000


class Link:
    """One client of one cluster; connects at the first question, and again after the cluster was away."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._client: AIOKafkaClient | None = None
        self._opening = asyncio.Lock()

    @property
    def connected(self) -> AIOKafkaClient | None:
        """The client, where it is connected already."""
        return self._client

    async def client(self) -> AIOKafkaClient:
        """The client, connected.  Raises KafkaError where no bootstrap server answers."""
        async with self._opening:
            if self._client is None:
                client = AIOKafkaClient(
                    bootstrap_servers=self._servers,
                    request_timeout_ms=_REQUEST_MS,
                    retry_backoff_ms=int(BACKOFF * 1000),
                    metadata_max_age_ms=60_000,
                )
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
        return self._client

    async def leader(self, partition: WirePartition) -> tuple[AIOKafkaClient, int]:
        """The client and the node that leads `partition`.  Raises KafkaError where none is known, for now."""
        client = await self.client()
        node = client.cluster.leader_for_partition(partition)
        if node is None or node == -1:
            client.add_topic(partition.topic)
            await client.force_metadata_update()
            node = client.cluster.leader_for_partition(partition)
        if node is None or node == -1:
            raise KafkaError(f"{partition.topic}/{partition.partition} has no leader")
        return client, int(node)

    async def refresh(self) -> None:
        """Ask the cluster anew who leads what."""
        client = await self.client()
        await client.force_metadata_update()

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def persist(self, ask: Callable[[], Awaitable[T]], *, what: str, within: float = ANSWER_WITHIN) -> T:
        """Ask until an answer comes.  Raises BusUnavailableError after `within` seconds, BusError where it is final."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(within):
                while True:
                    try:
                        return await ask()
                    except (KafkaError, OSError) as error:
                        if not may_pass(error):
                            raise BusError(f"Kafka refused {what}: {error!r}") from error
                        last = error
                    await asyncio.sleep(BACKOFF)
        except TimeoutError:
            raise BusUnavailableError(
                f"Kafka at {self._servers} did not answer {what} within {within:g} s ({last!r});"
                " see whether its brokers run and can be reached"
            ) from last


def may_pass(error: Exception) -> bool:
    """Whether asking again may help: connection troubles, elections, topics that are just being made."""
    return isinstance(error, OSError) or type(error) is KafkaError or bool(getattr(error, "retriable", False))


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _MetadataResponse_v12(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest_v12(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse_v12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class DescribeTopic(Request[_MetadataRequest_v12]):
    """Metadata of one topic, with its id (Kafka 3.1 and later)."""

    API_KEY = 3

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_MetadataRequest_v12]) -> _MetadataRequest_v12:
        nil: Any = UUID(int=0)
        return request_struct_class([(nil, self._name, {})], False, False, {})
