"""What the code of a run asks of its worker: to be waited for, or to go on with changed code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import bus
from penstock.events.bus import Bus, TopicPartition
from penstock.events.event import RESERVED_PREFIX
from penstock.flows.states import State
from penstock.services import hints
from penstock.services.hints import Hints
from penstock.services.runs import hold
from penstock.services.waits import ANSWER, accept_code, answered_since, go_on, lock, request_approval, request_event
from penstock.services.worker.claims import ClaimedRun, give_back
from penstock.services.worker.frames import Asked
from penstock.services.worker.secrecy import Secrecy
from penstock.triggers import Pattern, PatternError

NEVER = timedelta(days=36_500)  # until it is due by time: somebody has to answer
Write = Callable[[Callable[[AsyncConnection], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a worker's runs ask.  partitions: of a topic of events, should it have to be made."""

    bus: Bus
    hints: Hints
    partitions: int

    async def take(self, claimed: ClaimedRun, frame: Asked, secrecy: Secrecy, source: str, write: Write) -> str:
        """Keep what is asked.  Returns why it cannot be, or "".

        source: digest of the code that the run's process has.  write: in a transaction, while the run is ours.
        """
        run_id, epoch = claimed.id, claimed.epoch
        if frame.what in ("continue", "restart"):
            choice = cast("Literal['continue', 'restart']", frame.what)
            await write(lambda connection: _accept(connection, run_id, epoch, choice, source))
            return ""
        if frame.what == "approval":
            question = secrecy.mask_within(frame.body)
            await write(lambda connection: request_approval(connection, run_id, epoch, frame.call, question))
            return ""
        if secrecy.mask_within(frame.body) != msgspec.json.decode(frame.body):
            return "what it waits for holds a secret, which would be stored in clear; wait for something else of it"
        return await self._wait_for_event(claimed, frame, write)

    async def _wait_for_event(self, claimed: ClaimedRun, frame: Asked, write: Write) -> str:
        asked = msgspec.json.decode(frame.body)
        pattern = pattern_of(asked["type"], asked["where"])
        try:
            Pattern(pattern)
        except PatternError as error:
            return f"no event can be waited for by this pattern: {error}"
        positions, since = await self._positions(asked["type"], asked["lookback"])
        wanted = {"pattern": pattern, "since": since, "seconds": asked["seconds"], "parent": asked["parent"]}
        run_id, epoch = claimed.id, claimed.epoch
        await write(lambda connection: request_event(connection, run_id, epoch, frame.call, wanted, positions))
        await self.hints.give(hints.WAITS)
        return ""

    async def _positions(self, types: list[str], lookback: float) -> tuple[dict[TopicPartition, int], int]:
        """From where on events count; and since when, where the past counts, too."""
        partitions = [
            TopicPartition(name, number)
            for name in topics_of(types)
            for number in range((await self.bus.ensure_topic(name, self.partitions)).partitions)
        ]
        ends = await asyncio.gather(*(self.bus.end(each) for each in partitions))
        if not lookback:
            return {each: end.position for each, end in zip(partitions, ends, strict=True)}, 0
        since = max(end.at for end in ends) - round(lookback * 1_000_000)
        found = await asyncio.gather(*(self.bus.position_at(each, since) for each in partitions))
        return dict(zip(partitions, found, strict=True)), since


async def suspend(
    connection: AsyncConnection,
    claimed: ClaimedRun,
    state: State,
    wait: timedelta | None,
    *,
    detail: str,
    waits_for: str,
    actor: str,
) -> None:
    """The run leaves its process.  wait: until it is due by time; None: never.

    What was answered meanwhile, unheard by the process, lets it go on at once.  Raises StaleEpochError.
    """
    state = state if wait is None else State.WAITING  # only these are claimed by their time
    due = NEVER if wait is None else wait
    await give_back(connection, claimed, state, wait=due, detail=detail, actor=actor, waiting_for=waits_for)
    if waits_for == ANSWER and await answered_since(connection, claimed.id, claimed.recorded):
        run = await lock(connection, claimed.id)
        if run is not None and run["waiting_for"] == ANSWER:  # it may have been suspended as well
            await go_on(connection, run, actor=actor, detail="answered meanwhile")


def topics_of(types: list[str]) -> list[str]:
    """Where events of these types lie."""
    reserved = [_may_be_reserved(each) for each in types]
    own = [each.startswith(RESERVED_PREFIX) for each in types]
    return [*([bus.EVENTS] if not all(own) else []), *([bus.SYSTEM] if any(reserved) else [])]


def pattern_of(types: list[str], where: Mapping[str, Any]) -> dict[str, Any]:
    """The EventBridge pattern of both."""
    return {**where, "type": [{"wildcard": each} if "*" in each else each for each in types]}


def _may_be_reserved(type_: str) -> bool:
    fixed = type_.partition("*")[0]
    return type_.startswith(RESERVED_PREFIX) or ("*" in type_ and RESERVED_PREFIX.startswith(fixed))


async def _accept(
    connection: AsyncConnection, run_id: str, epoch: int, choice: Literal["continue", "restart"], source: str
) -> None:
    await hold(connection, run_id, epoch)
    await accept_code(connection, run_id, choice, source)
