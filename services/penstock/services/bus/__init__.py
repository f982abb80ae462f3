"""The bus port's two adapters: Apache Kafka, and Redis streams."""

from __future__ import annotations

from penstock.events.bus import Bus
from penstock.services.bus.address import BusAddress, BusUrlError, parse_address
from penstock.services.bus.kafka import KafkaBus
from penstock.services.bus.redis import RedisBus


async def connect(url: str) -> Bus:
    """Connect to the bus that a URL names; close it with `close()`.

    url: `kafka://host:port[,host:port]`, `redis://host:port/db`, `rediss://…` or `unix:///path/to.sock`, each with an
    optional `?prefix=…` that is put before every topic name, so that several Penstocks can share one server.
    Raises BusUrlError, and BusUnavailableError where nobody answers within some 15 seconds.
    """
    address = parse_address(url)
    bus: KafkaBus | RedisBus = KafkaBus(address) if address.kind == "kafka" else RedisBus(address)
    try:
        await bus.connect()
    except BaseException:
        await bus.close()
        raise
    return bus


__all__ = ["BusAddress", "BusUrlError", "connect", "parse_address"]
