"""What a client that emits must know of the bus: which partition a key goes to, and how Redis streams are laid out.

The adapters of the services build on the same.
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any

import msgspec
from aiokafka.partitioner import murmur2

from penstock.events.bus import Outgoing
from penstock.events.errors import BusError


class NoSuchPartitionError(BusError):
    """A record names a partition that its topic does not have."""

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        super().__init__(f"topic {topic!r} has partitions 0 to {partitions - 1}, not {partition}")


def choose_partition(record: Outgoing, partitions: int) -> int:
    """The explicit one, else the key's, as every Kafka client would choose it, else any.

    Raises NoSuchPartitionError.
    """
    if record.partition is not None:
        if not 0 <= record.partition < partitions:
            raise NoSuchPartitionError(record.topic, record.partition, partitions)
        return record.partition
    if record.key is not None:
        return _hash(record.key) % partitions
    return random.randrange(partitions)


def redis_stream(prefix: str, topic: str, partition: int) -> str:
    """The key of a partition's stream."""
    return f"{prefix}{topic}:{partition}"


def redis_entry(record: Outgoing) -> dict[Any, Any]:
    """The fields of a record's entry; the server's clock stamps it."""
    fields: dict[Any, Any] = {"value": record.value}
    if record.key is not None:
        fields["key"] = record.key
    if record.headers:
        fields["headers"] = msgspec.msgpack.encode(record.headers)
    return fields


def redis_partitions(topic: str, description: bytes | str | None) -> int:
    """How many partitions a topic has, from what stands at its key.  Raises BusError where it is no topic."""
    if description is None:
        raise BusError(f"there is no topic {topic!r} on this bus; is Penstock running on it?")
    try:
        return int(json.loads(description)["partitions"])
    except (ValueError, KeyError, TypeError) as error:
        raise BusError(f"the key of topic {topic!r} in Redis holds no topic; is the prefix right?") from error


@lru_cache(maxsize=1 << 16)
def _hash(key: bytes) -> int:
    """As Kafka's default partitioner; remembered, since it is computed in Python and keys come again and again."""
    return int(murmur2(key)) & 0x7FFFFFFF
