"""Code that changes under a run that waits: it is told what changed, and it goes on, begins anew or asks a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.rig import Rig, open_rig
from tests.support.runs import add, rows, states
from tests.support.waiting import is_in, notes, pass_time, result
from tests.support.workers import ended, working

from penstock.services.database import tables
from penstock.services.runs import NewRun, RunNotFoundError, TransitionError
from penstock.services.waits import choose_code

FLOWS = """
from penstock.flows import flow, sleep, task


@task
def note(word: str) -> str:
    with open("{path}", "a") as file:
        file.write(word + "\\n")
    return word + "{mark}"


async def body(word: str) -> str:
    found = note(word)
    await sleep(3600)
    return found


@flow(on_changed_code="ask")
async def careful(word: str) -> str:
    return await body(word)


@flow
async def easy(word: str) -> str:
    return await body(word)


@flow(on_changed_code="restart")
async def fresh(word: str) -> str:
    return await body(word)


@flow(on_changed_code="refuse")
async def strict(word: str) -> str:
    return await body(word)
"""


@pytest.fixture
async def rig(any_database_url: str, redis_bus_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    more = {"flows": (write(tmp_path, "-old"),), "concurrency": 1}
    async with open_rig(
        database_url=any_database_url, bus_url=redis_bus_url, redis_url=redis_url, folder=tmp_path, **more
    ) as made:
        yield made


def write(folder: Path, mark: str) -> str:
    path = folder / "changing_flows.py"
    path.write_text(FLOWS.replace("{path}", str(folder / "notes")).replace("{mark}", mark))
    return str(path)


async def all_in(rig: Rig, state: str, *run_ids: str) -> None:
    for run_id in run_ids:
        await rig.until(partial(is_in, rig.context.database, run_id, state), within=20, what=run_id)


async def test_what_becomes_of_a_run_whose_code_changed_is_told_and_can_be_chosen(rig: Rig, tmp_path: Path) -> None:
    database = rig.context.database
    flows = {"asks": "careful", "again": "careful", "goes-on": "easy", "anew": "fresh", "fails": "strict"}
    async with working(rig.context):
        await add(database, *(NewRun(name, flow, f'{{"word": "{name}"}}') for name, flow in flows.items()))
        await all_in(rig, "waiting", *flows)
    write(tmp_path, "-new")
    await pass_time(database)
    async with working(rig.context):
        found = {row["id"]: row for row in await ended(database, "goes-on", "fails")}
        assert (result(found["goes-on"]), found["fails"]["state"]) == ("goes-on-old", "failed")
        assert "the code of 'note' is another" in found["fails"]["error"]
        log = [row["line"] for row in await rows(database, tables.run_log, tables.run_log.c.run_id == "goes-on")]
        assert any("the code of 'note' is another; it goes on" in line for line in log)
        await all_in(rig, "paused", "asks", "again")
        reason = (await rows(database, tables.run_event, tables.run_event.c.run_id == "asks"))[-1]["detail"]
        assert "the code of 'note' is another" in reason
        async with database.begin() as connection:
            await choose_code(connection, "default", "asks", "continue", "user/ann")
            await choose_code(connection, "default", "again", "restart", "user/ann")
            with pytest.raises(TransitionError):
                await choose_code(connection, "default", "goes-on", "continue", "user/ann")
            with pytest.raises(RunNotFoundError):
                await choose_code(connection, "other", "asks", "continue", "user/ann")
        await all_in(rig, "waiting", "again", "anew")
        assert result((await ended(database, "asks"))[0]) == "asks-old"
        await pass_time(database)
        assert [result(row) for row in await ended(database, "again", "anew")] == ["again-new", "anew-new"]
    assert sorted(notes(tmp_path)) == sorted([*flows, "again", "anew"])
    assert (await states(database, "asks"))[-4:] == ["paused", "pending", "running", "completed"]
    audit = await rows(database, tables.audit, tables.audit.c.action == "run.resumed")
    assert sorted((row["object"], row["actor"]) for row in audit) == [
        ("run/again", "user/ann"),
        ("run/asks", "user/ann"),
    ]
