"""The bus on Redis streams (6.2 and later): one machine's bus, for the embedded way to run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from penstock.events.bus import End, Publisher, Reader, Topic, TopicPartition
from penstock.events.errors import BusUnavailableError
from penstock.events.instants import MILLISECOND, Instant
from penstock.services.bus.address import BusAddress
from penstock.services.bus.redis_link import open_client, persist
from penstock.services.bus.redis_publisher import RedisPublisher
from penstock.services.bus.redis_reader import RedisReader
from penstock.services.bus.redis_streams import (
    SEQUENCE_BITS,
    StoredTopic,
    mark,
    start_key,
    stream_key,
    to_entry_id,
    to_offset,
    to_record,
)

_CONNECTIONS = 20  # for short commands; each reader and publisher has one of its own besides

# Returns the server's milliseconds, then the last id that each stream has given out: one step, so that whatever was
# appended before that millisecond lies below.
_ENDS = """
local now = redis.call('TIME')
local found = {now[1] .. string.format('%03d', math.floor(tonumber(now[2]) / 1000))}
for i, key in ipairs(KEYS) do
  local id = '0-0'
  if redis.call('EXISTS', key) == 1 then
    local info = redis.call('XINFO', 'STREAM', key)
    for j = 1, #info, 2 do
      if info[j] == 'last-generated-id' then id = info[j + 1] end
    end
  end
  found[#found + 1] = id
end
return found
"""

# Moves the mark forward, never back, and removes what lies before it, in one step.
_TRIM = """
if (redis.call('GET', KEYS[2]) or '') < ARGV[1] then redis.call('SET', KEYS[2], ARGV[1]) end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
"""


class RedisBus:
    """A connection to one server."""

    def __init__(self, address: BusAddress) -> None:
        self._server, self._prefix = address.server, address.prefix
        self._redis = open_client(address.server, _CONNECTIONS)
        self._open: WeakSet[Reader | Publisher] = WeakSet()  # those that their users still hold
        self._stamped: dict[str, bool] = {}

    async def connect(self) -> None:
        """See whether the server answers.  Raises BusUnavailableError."""
        await persist(self._redis.ping, what="the first connection")

    async def ensure_topic(self, name: str, partitions: int, *, stamped_by_producer: bool = False) -> Topic:
        """See Bus. Of two processes that make it at once one wins, and both see its topic."""
        made = StoredTopic.new(name, partitions, stamped_by_producer)
        await persist(
            lambda: self._redis.set(self._prefix + name, made.encode(), nx=True), what=f"the making of topic {name!r}"
        )
        return await self.topic(name) or made.topic

    async def topic(self, name: str) -> Topic | None:
        """See Bus."""
        text = await persist(lambda: self._redis.get(self._prefix + name), what=f"what topic {name!r} is")
        return None if text is None else StoredTopic.decode(name, text).topic

    async def beginning(self, partition: TopicPartition) -> int:
        """See Bus: 0 until it is trimmed for the first time."""
        found = await persist(
            lambda: self._redis.get(start_key(self._prefix, partition)), what=f"the beginning of {partition}"
        )
        return 0 if found is None else int(found)

    async def end(self, partition: TopicPartition) -> End:
        """See Bus."""
        return (await self.ends([partition]))[partition]

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, End]:
        """The ends of several partitions, all as of one moment of the server's clock."""
        asked = list(partitions)
        keys = [stream_key(self._prefix, each) for each in asked]
        found: list[bytes] = await persist(lambda: self._eval(_ENDS, keys), what="the ends of streams")
        at = int(found[0]) * MILLISECOND
        ends = {each: End(_after(last), at) for each, last in zip(asked, found[1:], strict=True)}
        for each, last in zip(asked, found[1:], strict=True):
            if await self._stamped_by_producer(each.topic):
                ends[each] = End(_after(last), await self._stamp(each, last))
        return ends

    async def position_at(self, partition: TopicPartition, at: Instant) -> int:
        """See Bus. Offsets are times, unless the producer sets those."""
        first = await self.beginning(partition)
        if await self._stamped_by_producer(partition.topic):
            return first
        found: int = max(first, max(0, at) // MILLISECOND << SEQUENCE_BITS)
        return min(found, (await self.end(partition)).position)

    async def trim(self, partition: TopicPartition, below: int) -> None:
        """See Bus. Exact; what is read from a position before it afterwards raises PositionLostError."""
        below = min(below, (await self.end(partition)).position)
        keys = [stream_key(self._prefix, partition), start_key(self._prefix, partition)]
        await persist(
            lambda: self._eval(_TRIM, keys, mark(below), to_entry_id(below)), what=f"the trimming of {partition}"
        )

    def reader(self) -> Reader:
        """See Bus."""
        reader = RedisReader(self, open_client(self._server, 1), self._prefix)
        self._open.add(reader)
        return reader

    async def publisher(self) -> Publisher:
        """See Bus."""
        publisher = RedisPublisher(open_client(self._server, 1), self._redis, self._prefix)
        self._open.add(publisher)
        await publisher.connect()
        return publisher

    async def healthy(self) -> bool:
        """See Bus."""
        try:
            await persist(self._redis.ping, what="a ping", within=2.0)
        except BusUnavailableError:
            return False
        return True

    async def close(self) -> None:
        """See Bus."""
        for each in list(self._open):
            await each.close()
        await self._redis.aclose()

    async def _stamped_by_producer(self, topic: str) -> bool:
        """Remembered: it is settled when a topic is made."""
        if topic not in self._stamped:
            text = await persist(lambda: self._redis.get(self._prefix + topic), what=f"who stamps topic {topic!r}")
            if text is None:
                return False
            self._stamped[topic] = StoredTopic.decode(topic, text).stamped_by_producer
        return self._stamped[topic]

    async def _stamp(self, partition: TopicPartition, last: bytes) -> Instant:
        """The append time of the last record up to an id; 0 where there is none."""
        key = stream_key(self._prefix, partition)
        found: Any = await persist(
            lambda: self._redis.xrevrange(key, max=last.decode(), count=1), what=f"the last record of {partition}"
        )
        return to_record(partition, *found[0]).appended_at if found else 0

    async def _eval(self, script: str, keys: list[str], *arguments: str) -> Any:
        return await self._redis.eval(script, len(keys), *keys, *arguments)


def _after(last: bytes) -> int:
    """The position behind the last id given out; 0 for a stream that has none yet."""
    return 0 if last == b"0-0" else to_offset(last) + 1
