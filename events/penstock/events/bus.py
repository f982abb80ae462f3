"""The bus port: what Penstock asks of Kafka, and of Redis streams, in one contract.

A topic has a fixed number of partitions. A partition is a log of records, each with an `offset` (an integer that only
grows; not dense on Redis) and an append time that the broker sets. A *position* is the offset of the next record to
read: reading from position p gives every record with offset >= p. Who owns a partition, and its stored position, is the
database's affair (see services/database): the port knows no consumer groups.

`tests/integration/bus/` holds the one suite that both adapters pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from penstock.events.instants import Instant

EVENTS = "penstock.events"
SYSTEM = "penstock.system"
MATCHES = "penstock.matches"
NOTIFICATIONS = "penstock.notifications"
DEAD_LETTER = "penstock.dead-letter"
MATCH_PARTITIONS = 24


def runs_topic(pool: str) -> str:
    """The topic whose records wake the workers of a pool."""
    return f"penstock.runs.{pool}"


class TopicPartition(NamedTuple):
    """One log."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as read. `appended_at` is the broker's append time."""

    topic: str
    partition: int
    offset: int
    appended_at: Instant
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record to publish. `partition` wins over `key`; with neither the adapter chooses.

    timestamp: its append time, for topics stamped by the producer (whole milliseconds; none: now); others ignore it.
    """

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: Instant | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic is: `id` changes when it is deleted and made anew."""

    name: str
    id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class End:
    """The end of a log: every record appended before `at` (bus time) lies below `position`.

    The bus's time is the broker's; on a topic stamped by the producer it stands at its last record (0: none yet).
    """

    position: int
    at: Instant


class Reader(Protocol):
    """Reads any set of partitions, each from a position that the caller names. Not safe for concurrent use."""

    async def take(self, partition: TopicPartition, position: int) -> None:
        """Read `partition` from `position` on.  Raises PositionLostError where the log begins after it."""

    async def drop(self, partition: TopicPartition) -> None:
        """Stop reading it; nothing of it is returned afterwards."""

    async def poll(self, *, max_records: int, timeout: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """Up to `max_records` per partition; waits `timeout` seconds at most for the first.

        In order per partition, none left out, none twice.  Raises PositionLostError, BusError.
        """

    async def ends(self) -> Mapping[TopicPartition, End]:
        """The end of each partition taken, asked from the broker now."""

    async def close(self) -> None:
        """Let go of everything; safe to call twice."""


class Publisher(Protocol):
    """Publishes with acks=all. Records of one partition are appended in the order given."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Append all; returns once each is acknowledged.

        Raises BusError if any was not: the caller takes none as sent. After an error a later call does not overtake
        an earlier record of the same partition that is still in flight: the publisher starts afresh first.
        """

    async def close(self) -> None:
        """Flush and let go; safe to call twice."""


class Bus(Protocol):
    """A connection to one bus."""

    async def ensure_topic(self, name: str, partitions: int, *, stamped_by_producer: bool = False) -> Topic:
        """The topic, made if it is missing (an existing one keeps its number of partitions).

        stamped_by_producer: append times are the producer's (tests that move time); else the broker's.
        """

    async def topic(self, name: str) -> Topic | None:
        """What the bus knows of it now; None where there is none."""

    async def beginning(self, partition: TopicPartition) -> int:
        """The oldest position that can still be read."""

    async def end(self, partition: TopicPartition) -> End:
        """The end of one partition, asked from the broker now."""

    async def position_at(self, partition: TopicPartition, at: Instant) -> int:
        """A position from which every record is read that was appended at `at` or later, and few that were before."""

    async def trim(self, partition: TopicPartition, below: int) -> None:
        """Records with an offset < `below` may be removed (Redis: they are; Kafka: retention does it)."""

    def reader(self) -> Reader:
        """A new reader."""

    async def publisher(self) -> Publisher:
        """A new publisher, connected."""

    async def healthy(self) -> bool:
        """Whether the broker answers."""

    async def close(self) -> None:
        """Close whatever was opened through this connection; safe to call twice."""
