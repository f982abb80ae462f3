"""The root of every error that Penstock raises on purpose.

PenstockError
├── InvalidEventError        an event is not a CloudEvent that we accept; nothing was sent
├── BusError                 the bus did not acknowledge
│   ├── BusUnavailableError  it cannot be reached
│   ├── BufferFullError      the client's buffer is full; slow down or wait
│   ├── PositionLostError    a stored position is no longer in the log
│   └── TopicReplacedError   a topic is not the one that the database knows
└── …                        each part adds its own below this root
"""

from __future__ import annotations


class PenstockError(Exception):
    """Something went wrong that Penstock can name; the text says what, and what to do."""


class InvalidEventError(PenstockError, ValueError):
    """An event is refused.

    field: the attribute at fault ("" for the whole body).  reason: what is wrong and what would be right.
    index: which event of a batch, from 0; None outside of batches.
    """

    def __init__(self, reason: str, *, field: str = "", index: int | None = None) -> None:
        self.field, self.reason, self.index = field, reason, index
        where = "" if index is None else f"event {index} of the batch: "
        super().__init__(where + (f"{field}: {reason}" if field else reason))


class BusError(PenstockError):
    """The bus did not acknowledge; what was being sent must be taken as not sent."""


class BusUnavailableError(BusError):
    """The bus cannot be reached."""


class BufferFullError(BusError):
    """The client's buffer of unacknowledged events is full."""


class PositionLostError(BusError):
    """The log no longer has the position that was asked for.

    topic, partition; wanted: the stored position; found: the oldest one that the log still has.
    """

    def __init__(self, topic: str, partition: int, *, wanted: int, found: int) -> None:
        self.topic, self.partition, self.wanted, self.found = topic, partition, wanted, found
        super().__init__(
            f"{topic}/{partition}: position {wanted} is gone, the oldest one left is {found};"
            f" the records between were removed before they were read"
        )


class TopicReplacedError(BusError):
    """A topic was deleted and made anew: its positions mean something else now."""

    def __init__(self, topic: str, *, recorded: str, found: str) -> None:
        self.topic, self.recorded, self.found = topic, recorded, found
        super().__init__(
            f"topic {topic!r} has id {found}, the database recorded {recorded}: it was deleted and made anew."
            f" Restore it, or forget its positions with `penstock db forget-topic {topic}`"
        )
