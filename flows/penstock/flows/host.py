"""What a run's code may ask of whoever looks after the run: a worker. In plain Python nobody does."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Literal, Protocol, TypeAlias

Wanted: TypeAlias = Literal["approval", "event", "continue", "restart"]


class Host(Protocol):
    """Keeps what a run waits for, so that the run needs no process meanwhile. May be called from any thread."""

    def ask(self, what: Wanted, key: str, body: bytes) -> Future[None]:
        """Have something kept; the future is done once it is, or raises WaitError with the reason why it is not.

        approval, event: the answer will be recorded under `key`; asking again under one key changes nothing.
        continue: the run goes on with changed code, and what it was recorded with is forgotten.  restart: everything
        that was recorded is, too.  body: a JSON object.
        """

    def leaving(self, until: int | None) -> None:
        """Code is about to leave the process, and is to be replayed at this instant (µs) at the latest; None: never."""
