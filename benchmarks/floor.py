"""The floor: the least that any such system does for one event, with bare clients.

produce → consume → one asyncpg commit → produce → consume, on the same Kafka and PostgreSQL, at the same rate.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

_BODY = b'{"specversion":"1.0","id":"%d","source":"/bench","type":"bench.floor","data":{"n":%d}}'


async def floor_latencies(bootstrap: str, database_url: str, rate: float, count: int, prefix: str) -> list[float]:
    """Milliseconds from the first send to the second receipt, of each of `count` events at `rate` a second."""
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        stack.push_async_callback(connection.close)
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_floor (id bigint, body bytea)")
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0)
        await producer.start()
        stack.push_async_callback(producer.stop)
        first = await _consumer(stack, bootstrap, prefix + "floor.in")
        second = await _consumer(stack, bootstrap, prefix + "floor.out")
        sent: dict[int, float] = {}
        latencies: list[float] = []

        async def middle() -> None:
            async for record in first:
                async with connection.transaction():
                    await connection.execute("INSERT INTO bench_floor VALUES ($1, $2)", record.offset, record.value)
                await producer.send_and_wait(prefix + "floor.out", record.value, key=record.key)

        async def last() -> None:
            async for record in second:
                latencies.append((time.perf_counter() - sent[int(record.key)]) * 1_000)
                if len(latencies) == count:
                    return

        relay, ending = asyncio.create_task(middle()), asyncio.create_task(last())
        began = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent[number] = time.perf_counter()
            await producer.send(prefix + "floor.in", _BODY % (number, number), key=b"%d" % number)
        async with asyncio.timeout(120):
            await ending
        relay.cancel()
        return latencies


async def warm_up(bootstrap: str, seconds: float, topic: str) -> int:
    """Use a broker that has just started for so long: it compiles its code as it is used, and the first thousands of
    requests cost it several times what they cost later.  Returns how many records it took.
    """
    count = 0
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0)
        await producer.start()
        stack.push_async_callback(producer.stop)
        consumer = await _consumer(stack, bootstrap, topic)
        reading = group.create_task(_read_all(consumer))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await producer.send_and_wait(topic, _BODY % (count, count), key=b"%d" % count)
            count += 1
        reading.cancel()
    return count


async def _read_all(consumer: AIOKafkaConsumer) -> None:
    async for _ in consumer:
        pass


async def _consumer(stack: AsyncExitStack, bootstrap: str, topic: str) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="latest", fetch_max_wait_ms=100)
    await consumer.start()
    await consumer.seek_to_end()  # what an earlier round has left is not read again
    for partition in consumer.assignment():
        await consumer.position(partition)
    stack.push_async_callback(consumer.stop)
    return consumer
