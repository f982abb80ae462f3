"""Partitions that are lost, or to be handed back, at an awkward moment."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.support.rig import Rig, until

from penstock.events.bus import MATCHES
from penstock.services.database import StaleEpochError
from penstock.services.engine.compiled import CompiledRules
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.effects import FlowPools
from penstock.services.engine.ownership import Lane, Ownership
from penstock.services.engine.reading import PartitionLoop
from penstock.services.engine.relay import Relay
from penstock.services.engine.stage_two import StageTwo

LEASE = timedelta(seconds=30)


async def test_a_partition_lost_while_another_is_taken_is_still_known_to_the_round_in_hand(rig: Rig) -> None:
    stage = stage_two(rig, Ownership(rig.context.database, "engine-1", LEASE))  # which owns nothing any more
    lost, taken = Lane(MATCHES, 0, 1, 5, 0), Lane(MATCHES, 1, 1, 7, 0)
    await stage.taken(lost)
    await stage.taken(taken)
    with pytest.raises(StaleEpochError):  # its commits are refused; that it is unknown would be another error
        await stage.handle(lost, [])


async def test_what_is_too_much_before_it_was_begun_goes_to_the_engine_that_came_meanwhile(rig: Rig) -> None:
    context = rig.context
    await context.bus.ensure_topic(MATCHES, 24)
    first, second = (Ownership(context.database, name, LEASE) for name in ("engine-1", "engine-2"))
    for each in (first, second, first):  # the second one is there before the first has begun to read anything
        await each.add_topic(MATCHES, 24)
        await each.balance()
    loop = PartitionLoop(
        stage_two(rig, first),
        [MATCHES],
        bus=context.bus,
        database=context.database,
        ownership=first,
        batch=10,
        may_read=lambda: True,
    )
    reading = asyncio.create_task(loop.run())

    async def halved() -> bool:
        await second.balance()
        return len(first.lanes(MATCHES)) == len(second.lanes(MATCHES)) == 12

    await until(halved, what="each engine to have its half")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def stage_two(rig: Rig, ownership: Ownership) -> StageTwo:
    context = rig.context
    relay = Relay(context.database, context.bus, ownership, context.hints, 1_000)
    decisions = Decisions("default", FlowPools("default"), context.database.skew)
    return StageTwo(context, ownership, CompiledRules(context.rulebook), decisions, relay)
