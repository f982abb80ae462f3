"""Events: the envelope, the client that emits them, the bus they travel on."""

from penstock.events.errors import (
    BufferFullError,
    BusError,
    BusUnavailableError,
    InvalidEventError,
    PenstockError,
)
from penstock.events.event import Event

__all__ = [
    "BufferFullError",
    "BusError",
    "BusUnavailableError",
    "Event",
    "InvalidEventError",
    "PenstockError",
]
