"""Events: the envelope, the client that emits them, the bus they travel on."""

from penstock.events.emit import AsyncEmitter, Emitter, aemit, emit
from penstock.events.errors import (
    BufferFullError,
    BusError,
    BusUnavailableError,
    InvalidEventError,
    PenstockError,
)
from penstock.events.event import Event
from penstock.events.targets import NoTargetError, TargetUrlError

__all__ = [
    "AsyncEmitter",
    "BufferFullError",
    "BusError",
    "BusUnavailableError",
    "Emitter",
    "Event",
    "InvalidEventError",
    "NoTargetError",
    "PenstockError",
    "TargetUrlError",
    "aemit",
    "emit",
]
