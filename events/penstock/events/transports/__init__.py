"""The ways by which `emit` reaches Penstock. Each loads its client library only when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.events.bus import Outgoing
from penstock.events.targets import Target


class Transport(Protocol):
    """Bound to the event loop it is used in; any number of tasks may `send` at once."""

    async def send(self, records: Sequence[Outgoing], timeout: float) -> None:
        """Returns once all are acknowledged by all replicas; `timeout` seconds at most, connecting included.

        Raises BusError (then take none as sent; to send them again is safe), InvalidEventError.
        """

    async def close(self) -> None:
        """Let go of the connection; safe to call twice."""


def open_transport(target: Target) -> Transport:
    """The transport for a target, not yet connected.  Raises ClientMissingError."""
    if target.kind == "kafka":
        from penstock.events.transports.kafka import KafkaTransport

        return KafkaTransport(target)
    if target.kind == "redis":
        from penstock.events.transports.redis import RedisTransport

        return RedisTransport(target)
    from penstock.events.transports.http import HttpTransport

    return HttpTransport(target)


__all__ = ["Transport", "open_transport"]
