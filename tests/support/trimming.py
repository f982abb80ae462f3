"""Remove the oldest records of a topic, as retention does it."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition as WirePartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from penstock.events.bus import TopicPartition
from penstock.services.bus import connect, parse_address


async def remove_records(bus_url: str, topic: str, below: Mapping[int, int]) -> None:
    """Remove the records of each partition whose offset lies below the given one (nothing where that is 0 or less)."""
    address = parse_address(bus_url)
    if address.kind == "kafka":
        wire = {
            WirePartition(address.prefix + topic, number): RecordsToDelete(at) for number, at in below.items() if at > 0
        }
        admin = AIOKafkaAdminClient(bootstrap_servers=address.server)
        await admin.start()
        try:
            await admin.delete_records(wire)
        finally:
            await admin.close()
        return
    bus = await connect(bus_url)
    for number, at in below.items():
        if at > 0:
            await bus.trim(TopicPartition(topic, number), at)
    await bus.close()
