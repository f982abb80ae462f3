"""What every service is given, and what every service is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from redis.asyncio import Redis

from penstock.events.bus import Bus
from penstock.events.errors import PenstockError
from penstock.services.database import Database
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.settings import Settings


class UnmendableError(PenstockError):
    """No waiting can mend it: the process ends instead of trying again."""


@dataclass(frozen=True, slots=True)
class Context:
    """The open connections of one process, made by `wiring` and shared by its services."""

    settings: Settings
    database: Database
    bus: Bus
    redis: Redis
    hints: Hints
    rulebook: RuleBook
    instance: str  # names this process among all: host, pid and a random part
    hurry: asyncio.Event = field(default_factory=asyncio.Event)  # set: who stops shall not wait for anything


class Service(Protocol):
    """One of api, engine, scheduler, sensors, notifier, worker."""

    async def run(self, started: Callable[[], None]) -> None:
        """Work until cancelled; call `started()` once it does its job.

        When cancelled: finish or hand back what is in hand, within seconds. A dependency that is away for a while is
        waited for, with a log line; only what no waiting can mend ends it with an exception.
        """
