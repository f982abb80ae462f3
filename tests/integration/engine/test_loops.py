"""Chains of rules that trigger each other end by the hop budget, with one notice for each rule."""

from __future__ import annotations

import json
from typing import Any

from tests.support.rig import Rig

from penstock.automations import HOP_BUDGET
from penstock.events import Event, bus
from penstock.services.database import tables

SELF = """
automations:
  - name: echo
    when: {event: sound.made}
    then: [{emit: {type: sound.made}}]
"""
CIRCLE = """
automations:
  - name: ping
    when: {event: pong.hit, per: subject, count: 1}
    mode: queued
    then: [{emit: {type: ping.hit, subject: ball}}]
  - name: pong
    when: {event: ping.hit}
    then: [{emit: {type: pong.hit, subject: ball}}]
"""
OWN_EVENTS = """
automations:
  - name: watcher
    when: {event: "penstock.*"}
    then: [{emit: {type: watcher.saw}}]
"""


async def told(rig: Rig, topic: str) -> list[dict[str, Any]]:
    return [json.loads(each.value) for each in await rig.records(topic)]


async def ended(rig: Rig, loops: int) -> list[dict[str, Any]]:
    """Once `loops` firings were dead-lettered and all is read: the notices."""
    dead = tables.firing.c.status == "dead_lettered"

    async def enough() -> bool:
        return len(await rig.rows(tables.firing, dead)) >= loops

    await rig.until(enough, what="the chains to end")
    await rig.all_read()
    return [each for each in await told(rig, bus.SYSTEM) if each["type"] == "penstock.automation.looped"]


async def test_a_rule_that_emits_what_it_matches_ends_by_the_hop_budget_with_one_notice(rig: Rig) -> None:
    await rig.apply(SELF)
    await rig.start_engine()
    await rig.publish([Event(id=f"s{number}", source="/t", type="sound.made") for number in range(3)])
    [notice] = await ended(rig, 3)
    assert notice["subject"] == notice["data"]["automation"] == "echo"
    assert "look for rules that trigger each other" in notice["data"]["reason"]
    events = await told(rig, bus.EVENTS)
    assert sorted(each.get("hops", 0) for each in events) == sorted([*range(HOP_BUDGET + 1)] * 3)
    letters = await told(rig, bus.DEAD_LETTER)
    assert [each["origin"]["automation"] for each in letters] == ["echo"] * 3
    assert len({each["id"] for each in letters}) == 3
    assert len(await rig.decisions()) == 3 * (HOP_BUDGET + 1)


async def test_rules_that_trigger_each_other_end_wherever_the_budget_does(rig: Rig) -> None:
    await rig.apply(CIRCLE)
    await rig.start_engine()
    await rig.publish([Event(id=f"p{number}", source="/t", type="ping.hit") for number in range(2)])
    await rig.publish([Event(id="q", source="/t", type="pong.hit", subject="ball")])
    notices = await ended(rig, 3)
    assert sorted(each["subject"] for each in notices) == ["ping", "pong"]
    assert all(each.get("hops", 0) <= HOP_BUDGET for each in await told(rig, bus.EVENTS))


async def test_a_rule_over_the_engines_own_words_ends_too(rig: Rig) -> None:
    await rig.apply(SELF + OWN_EVENTS.replace("automations:", ""))
    await rig.start_engine()
    await rig.publish([Event(id="s", source="/t", type="sound.made")])

    async def both() -> bool:
        found = [each for each in await told(rig, bus.SYSTEM) if each["type"] == "penstock.automation.looped"]
        return {each["subject"] for each in found} == {"echo", "watcher"}

    await rig.until(both, what="the notices")

    async def still() -> bool:
        count = len(await rig.decisions())
        await rig.all_read()
        return count == len(await rig.decisions()) and not await rig.rows(tables.outbox)

    await rig.until(still, what="the end of it")
    assert all(each.get("hops", 0) <= HOP_BUDGET for each in await told(rig, bus.SYSTEM))
