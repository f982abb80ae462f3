"""What a rule remembers across edits, restarts and its own absence: live, on both pairs, with a moved clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.every_form import MINUTE, SECOND, START
from tests.support.live import MS, arriving, ticks
from tests.support.rig import Rig, open_rig

from penstock.events import bus
from penstock.events.instants import Instant, format_instant
from penstock.services.database import tables
from penstock.services.engine import stage_two

RULES = """
automations:
  - name: burst
    shadow: true
    when: {event: knock, per: subject, count: 3, within: 1h}
    then: &act [{emit: {type: seen}}]
  - name: unanswered
    shadow: true
    when: {absent: {event: answer}, after: {event: question}, within: 10m, per: subject}
    then: *act
  - name: hot
    shadow: true
    when:
      event: reading
      metric: {value: data.v, over: 10m, stat: max, op: ">", threshold: 30, for: 5m, clear: 20}
      per: subject
    then: *act
    on_resolve: *act
"""


@pytest.fixture(autouse=True)
def _clocks_are_stored_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they can be looked at."""
    monkeypatch.setattr(stage_two, "_SETTLE", 0.1)


class Moved:
    """A rig with one source partition, whose clock goes where the test says."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._number = rig, 0

    async def open(self, rules: str = RULES) -> None:
        await self._rig.context.bus.ensure_topic(bus.EVENTS, 1, stamped_by_producer=True)
        await self._rig.apply(rules)
        self.engine = await self._rig.start_engine()

    async def edit(self, rules: str) -> None:
        """Put other rules in force; the next event is decided by them."""
        revision = await self._rig.apply(rules)

        async def in_force() -> bool:
            of_events = tables.position.c.topic == bus.EVENTS
            return all(row.revision == revision for row in await self._rig.rows(tables.position, of_events))

        await self.go_on(self._now)
        await self._rig.until(in_force, what="the revision to be in force")

    async def restart(self) -> None:
        """End the engine, and start another one."""
        await self._rig.stop(self.engine)
        self.engine = await self._rig.start_engine()

    async def send(self, at: int, type_: str, **data: Any) -> None:
        """An event at so many seconds, and wait until the clock is there."""
        self._number += 1
        when = START + at * SECOND
        event = {"specversion": "1.0", "id": f"e{self._number}", "source": "/t", "type": type_, "subject": "s"}
        await self._publish(arriving(when, {**event, "time": format_instant(when), "data": data}))
        await self.go_on(when)

    async def until(self, at: int) -> list[tuple[str, str, int]]:
        """Let the clock run on.  Returns (automation, kind, seconds) of all decisions until then."""
        await self.go_on(START + at * SECOND)
        rows = await self._rig.rows(tables.decision)
        found = [(row.automation, row.kind, (row.at - START) // SECOND) for row in rows]
        return sorted(found, key=lambda each: (each[2], each[0]))

    async def go_on(self, at: Instant) -> None:
        """Until every match partition has stored that the clock is past this instant, and has rung what was due."""
        self._now = at + 2 * MS
        await self._publish(*ticks(at + MS, 1))

        async def there() -> bool:
            of_events = tables.progress.c.origin_topic == bus.EVENTS
            rows = await self._rig.rows(tables.progress, of_events, tables.progress.c.at >= at + 2 * MS)
            return len(rows) == bus.MATCH_PARTITIONS and not await self._rig.rows(tables.state, self._due(at))

        await self._rig.until(there, what="the clock to go on")

    def _due(self, at: Instant) -> sa.ColumnElement[bool]:
        return tables.state.c.expires_at <= at

    async def _publish(self, *records: Any) -> None:
        publisher = await self._rig.context.bus.publisher()
        await publisher.publish(records)
        await publisher.close()


@pytest.fixture
async def moved(urls: dict[str, str], tmp_path: Path) -> Any:
    async with open_rig(**urls, folder=tmp_path, event_partitions=1) as rig:
        yield Moved(rig)


async def half_way(moved: Moved) -> None:
    """Two knocks of three, a question that waits, two minutes of five in which it is hot."""
    await moved.open()
    await moved.send(0, "knock")
    await moved.send(10, "knock")
    await moved.send(60, "question")
    await moved.send(60, "reading", v=40)
    assert await moved.until(180) == []


AS_EVER = [("burst", "fired", 200), ("hot", "fired", 360), ("hot", "resolved", 660), ("unanswered", "fired", 660)]


async def the_rest(moved: Moved) -> list[tuple[str, str, int]]:
    """The third knock; then nothing but time, until the hot reading has left."""
    await moved.send(200, "knock")
    await moved.send(400, "reading", v=10)
    return await moved.until(900)


async def test_an_edit_that_does_not_touch_when_keeps_windows_timers_and_for(moved: Moved) -> None:
    await half_way(moved)
    await moved.edit(
        "# a comment\n" + RULES.replace("shadow: true", "shadow: true\n    description: another text\n    cooldown: 1s")
    )
    assert await the_rest(moved) == AS_EVER


async def test_a_restart_of_the_engine_keeps_windows_timers_and_for(moved: Moved) -> None:
    await half_way(moved)
    await moved.restart()
    assert (await the_rest(moved))[:2] == AS_EVER[:2]
    await moved.restart()
    assert await moved.until(1_000) == AS_EVER


async def test_another_rule_that_comes_or_goes_changes_nothing(moved: Moved) -> None:
    await half_way(moved)
    await moved.edit(RULES + "  - {name: more, shadow: true, when: {event: knock, count: 2, within: 1h}, then: *act}\n")
    await moved.send(200, "knock")
    await moved.edit(RULES)
    await moved.send(400, "reading", v=10)
    assert await moved.until(900) == AS_EVER


async def test_disabling_a_rule_and_enabling_it_keeps_what_it_knows(moved: Moved) -> None:
    await half_way(moved)
    await moved.edit(RULES.replace("shadow: true", "shadow: true\n    enabled: false"))
    await moved.send(200, "question")
    await moved.edit(RULES)
    assert await the_rest(moved) == [*AS_EVER, ("unanswered", "fired", 800)]


async def test_an_edit_of_when_begins_anew(moved: Moved) -> None:
    await half_way(moved)
    await moved.edit(RULES.replace("within: 1h", "within: 2h").replace("within: 10m, per", "within: 11m, per"))
    found = await the_rest(moved)
    assert found == [each for each in AS_EVER if each[0] == "hot"]
    await moved.send(901, "knock")
    await moved.send(902, "knock")
    assert ("burst", "fired", 902) in await moved.until(903)


async def test_a_rule_that_is_removed_rings_no_more(moved: Moved) -> None:
    await half_way(moved)
    await moved.edit(RULES.replace("name: unanswered", "name: renamed").split("  - name: hot")[0])
    assert await the_rest(moved) == [AS_EVER[0]]
    assert await moved.until(10 * MINUTE // SECOND + 900) == [AS_EVER[0]]
