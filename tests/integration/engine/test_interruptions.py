"""An engine that is cut off amid a batch: the stored position never gets ahead of what was decided."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.rig import Rig

from penstock.events import Event
from penstock.services.database import Database, DatabaseUnavailableError, tables
from penstock.services.database.late import Writes
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.ownership import Ownership

RULES = """
automations:
  - name: single
    when: {event: login.failed}
    then: [{emit: {type: login.seen}}]
  - name: pair
    when: {event: login.failed, count: 2, within: 1h}
    then: [{emit: {type: pair.seen}}]
"""
PAIR = ("pair", None, ("l1", "l2"))
ALL = [PAIR, ("single", None, ("l1",)), ("single", None, ("l2",))]
LOGINS = [Event(id=f"l{number}", source="/web", type="login.failed", subject="ann") for number in (1, 2)]


@pytest.fixture(params=["at once", "after reading"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[type, str]:
    """Where a batch is committed: in one statement, or, as where a `mode` looks back, in a transaction that reads."""
    if request.param == "at once":
        return Database, "at_once"
    monkeypatch.setattr(Decisions, "leave", lambda *given: None)
    return Decisions, "write"


def decides(given: Any) -> bool:
    """Whether this commit has decisions, and is not just a position that is settled."""
    return bool(given[-1].rows if isinstance(given[-1], Writes) else given[-1])


async def test_a_batch_that_a_stop_cuts_off_is_read_again(
    rig: Rig, way: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.apply(RULES)
    writing, write = asyncio.Event(), getattr(*way)

    async def stuck(*given: Any) -> Any:
        if decides(given):
            writing.set()
            await asyncio.Event().wait()
        return await write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(*way, stuck)
        engine = await rig.start_engine()
        await rig.publish(LOGINS)
        await asyncio.wait_for(writing.wait(), 30)
        await rig.stop(engine)
    await rig.start_engine()
    assert await rig.wait_for_decisions(3) == ALL


async def test_a_batch_whose_commit_failed_is_read_again(
    rig: Rig, way: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.apply(RULES)
    write, failures = getattr(*way), iter(range(3))

    async def failing(*given: Any) -> Any:
        if decides(given) and next(failures, None) is not None:
            raise DatabaseUnavailableError("gone for a moment")
        return await write(*given)

    monkeypatch.setattr(*way, failing)
    await rig.start_engine()
    await rig.publish(LOGINS)
    assert await rig.wait_for_decisions(3) == ALL
    assert next(failures, None) is None


async def test_a_taking_whose_commit_was_not_heard_of_is_taken_again(rig: Rig) -> None:
    database = rig.context.database
    ownership = Ownership(database, "one", rig.context.settings.ownership_lease)
    await ownership.add_topic("topic", 2)
    async with database.begin() as connection:
        first = sa.update(tables.position).where(tables.position.c.partition == 0)
        await connection.execute(first.values(owner="one", epoch=7, lease_until=1 << 62))
    await ownership.balance()
    assert sorted((lane.partition, lane.epoch) for lane in ownership.lanes()) == [(0, 8), (1, 1)]
    await ownership.lost(ownership.lanes()[0])
    await ownership.balance()
    assert sorted(lane.partition for lane in ownership.lanes()) == [0, 1]
