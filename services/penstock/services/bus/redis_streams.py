"""How a topic lies in Redis: its keys, its offsets, its entries.

A topic `t` is a JSON object at `{prefix}t` (id, number of partitions) and one stream a partition, `{prefix}t:{n}`.
An offset is the entry's id as one integer: milliseconds of its appending, then SEQUENCE_BITS of sequence. It fits a
signed 64-bit column until the year 2248, and a million entries within one millisecond.
A trimmed stream has a mark at `{prefix}t:{n}:start`: the oldest position that is whole, in 20 digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec

from penstock.events.bus import Outgoing, Record, Topic, TopicPartition
from penstock.events.errors import BusError
from penstock.events.instants import MILLISECOND, Instant
from penstock.events.partitioning import redis_entry, redis_stream

SEQUENCE_BITS = 20
_SEQUENCE = (1 << SEQUENCE_BITS) - 1
_DIGITS = 20


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """What stands at a topic's key."""

    topic: Topic
    stamped_by_producer: bool

    @staticmethod
    def new(name: str, partitions: int, stamped_by_producer: bool) -> StoredTopic:
        """With an id of its own."""
        return StoredTopic(Topic(name, str(uuid4()), partitions), stamped_by_producer)

    @staticmethod
    def decode(name: str, text: bytes | str) -> StoredTopic:
        """Raises BusError where something else stands there."""
        try:
            found = json.loads(text)
            return StoredTopic(Topic(name, str(found["id"]), int(found["partitions"])), bool(found["stamped"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BusError(
                f"the key of topic {name!r} in Redis holds no topic; give the bus a prefix of its own"
            ) from error

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(
            {"id": self.topic.id, "partitions": self.topic.partitions, "stamped": self.stamped_by_producer, "format": 1}
        )


def stream_key(prefix: str, partition: TopicPartition) -> str:
    """Where its entries are."""
    return redis_stream(prefix, partition.topic, partition.partition)


def start_key(prefix: str, partition: TopicPartition) -> str:
    """Where its mark is."""
    return f"{stream_key(prefix, partition)}:start"


def to_offset(entry_id: bytes) -> int:
    """The offset of an entry.  Raises BusError for a sequence that does not fit."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    number = int(sequence)
    if number > _SEQUENCE:
        raise BusError(f"entry {entry_id.decode()} has a sequence above {_SEQUENCE}; was Redis's clock set back?")
    return int(milliseconds) << SEQUENCE_BITS | number


def to_entry_id(offset: int) -> str:
    """The entry with this offset, or the place where it would be."""
    return f"{offset >> SEQUENCE_BITS}-{offset & _SEQUENCE}"


def before(position: int) -> str:
    """The id after which XREAD begins to read from `position`."""
    return to_entry_id(position - 1) if position > 0 else "0-0"


def mark(position: int) -> str:
    """A position as it is stored: text of one width, so that a script can compare without losing digits."""
    return f"{position:0{_DIGITS}d}"


def to_entry(record: Outgoing, now: Instant | None) -> dict[Any, Any]:
    """The fields of an entry.  now: the append time where the producer sets it and the record names none."""
    fields = redis_entry(record)
    if now is not None:
        fields["at"] = now if record.timestamp is None else record.timestamp
    return fields


_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])


def to_record(partition: TopicPartition, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> Record:
    """The entry as read; one that Penstock did not write comes as it can, for the reader to judge."""
    offset, fields = to_offset(entry_id), fields or {}
    return Record(
        partition.topic,
        partition.partition,
        offset,
        _stamp(offset, fields.get(b"at")),
        fields.get(b"value", b""),
        fields.get(b"key"),
        _read_headers(fields.get(b"headers")),
    )


def _stamp(offset: int, at: bytes | None) -> Instant:
    if at is not None and at.isdigit():
        return int(at)
    return (offset >> SEQUENCE_BITS) * MILLISECOND


def _read_headers(content: bytes | None) -> tuple[tuple[str, bytes], ...]:
    if content is None:
        return ()
    try:
        return _headers.decode(content)
    except msgspec.MsgspecError:
        return ()  # not ours; the value matters
