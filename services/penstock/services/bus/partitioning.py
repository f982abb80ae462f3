"""Which partition a record goes to: the same one for the same key, on both adapters and for every Kafka client."""

from __future__ import annotations

import random
from functools import lru_cache

from aiokafka.partitioner import murmur2

from penstock.events.bus import Outgoing
from penstock.events.errors import BusError


class NoSuchPartitionError(BusError):
    """A record names a partition that its topic does not have."""

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        super().__init__(f"topic {topic!r} has partitions 0 to {partitions - 1}, not {partition}")


def choose_partition(record: Outgoing, partitions: int) -> int:
    """The explicit one, else the key's, else any.  Raises NoSuchPartitionError."""
    if record.partition is not None:
        if not 0 <= record.partition < partitions:
            raise NoSuchPartitionError(record.topic, record.partition, partitions)
        return record.partition
    if record.key is not None:
        return _hash(record.key) % partitions
    return random.randrange(partitions)


@lru_cache(maxsize=1 << 16)
def _hash(key: bytes) -> int:
    """As Kafka's default partitioner; remembered, since it is computed in Python and keys come again and again."""
    return int(murmur2(key)) & 0x7FFFFFFF
