"""What the providers have in common: a message, and how sending it can fail.

SendError          it was not sent, or it is not known
├── RefusedError   it never will be: nothing changes by trying again
└── RetryError     trying again may help; `after`: the provider's own word on when
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

from penstock.events.errors import PenstockError
from penstock.events.ids import derived_id

SEND_WITHIN = 10.0  # seconds for one request, a provider's short Retry-After included
LEASE_MARGIN = 2.0  # seconds of the lease that must be left after a request, to record its outcome


@dataclass(frozen=True, slots=True)
class Span:
    """How much of a lease one request may take.

    request: seconds for it, a provider's short Retry-After included.  margin: seconds that must be left afterwards, to
    record its outcome.
    """

    request: float = SEND_WITHIN
    margin: float = LEASE_MARGIN

    @property
    def needed(self) -> float:
        """Seconds of the lease without which no request is begun."""
        return self.request + self.margin

    @classmethod
    def within(cls, lease: timedelta) -> Span:
        """At most two thirds of a lease: a fresh claim always covers a request, however short its lease is."""
        seconds = lease.total_seconds()
        return cls(min(SEND_WITHIN, seconds / 2), min(LEASE_MARGIN, seconds / 6))


class SendError(PenstockError):
    """A message was not sent, or it is not known whether it was."""


class RefusedError(SendError):
    """It will never be sent: trying again changes nothing."""


class RetryError(SendError):
    """Trying again may help.  after: not before that long, where the provider said so."""

    def __init__(self, reason: str, after: timedelta = timedelta(0)) -> None:
        self.after = after
        super().__init__(reason)


class LeaseTooShortError(SendError):
    """The lease does not cover another request: the rest is left to the next claim."""


# Called before each request; raises LeaseTooShortError.
Check: TypeAlias = Callable[[], None]
# Stores what was achieved so far, so that a crash does not repeat it; raises StaleEpochError.
Keep: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Text:
    """One message with its secrets revealed: not to be stored or logged.

    id: of the delivery.  progress: what earlier tries achieved.
    """

    id: str
    text: str
    title: str | None
    progress: Mapping[str, Any]

    @property
    def client_id(self) -> str:
        """The same UUID for each try: what the receiver recognises a repeat by."""
        return str(UUID(derived_id("client_msg_id", self.id)))
