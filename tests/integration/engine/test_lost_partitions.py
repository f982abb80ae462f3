"""A partition that is lost while another one is being taken."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.rig import Rig

from penstock.events.bus import MATCHES
from penstock.services.database import StaleEpochError
from penstock.services.engine.compiled import CompiledRules
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.effects import FlowPools
from penstock.services.engine.ownership import Lane, Ownership
from penstock.services.engine.relay import Relay
from penstock.services.engine.stage_two import StageTwo


async def test_a_partition_lost_while_another_is_taken_is_still_known_to_the_round_in_hand(rig: Rig) -> None:
    context = rig.context
    ownership = Ownership(context.database, "engine-1", timedelta(seconds=3))  # owns nothing any more
    relay = Relay(context.database, context.bus, ownership, context.hints, 1_000)
    rules = CompiledRules(context.rulebook)
    decisions = Decisions("default", FlowPools("default"), context.database.skew)
    stage = StageTwo(context, ownership, rules, decisions, relay)
    lost, taken = Lane(MATCHES, 0, 1, 5, 0), Lane(MATCHES, 1, 1, 7, 0)
    await stage.taken(lost)
    await stage.taken(taken)
    with pytest.raises(StaleEpochError):  # its commits are refused; that it is unknown would be another error
        await stage.handle(lost, [])
