"""Finished calls of many runs go into the journal together, and none suffers for another."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.support.runs import add, claimer, end_leases, look, rows

from penstock.flows.journal import TaskCall
from penstock.flows.states import State
from penstock.services.database import Database, StaleEpochError, tables
from penstock.services.runs import Entry, NewRun, recorded_calls
from penstock.services.worker.journaling import journal_of

DONE = TaskCall("a", "", "step", State.COMPLETED, b"1", 10, 20, None, "label", ("b",), "digest")


async def kept(database: Database) -> dict[str, dict[str, bytes]]:
    async with database.read() as connection:
        return {run_id: each.results for run_id, each in (await recorded_calls(connection, ["r1", "r2"])).items()}


async def test_calls_of_runs_that_are_held_are_kept_and_those_of_others_refused(database: Database) -> None:
    await add(database, NewRun(id="r1", flow="reroute"))
    (old,) = (await look(database, claimer("w1"))).claimed
    await end_leases(database)
    (new,) = (await look(database, claimer("w2"))).claimed
    await add(database, NewRun(id="r2", flow="reroute"))
    (other,) = (await look(database, claimer("w1"))).claimed
    writer = journal_of(database)
    first = asyncio.create_task(writer.put(Entry("r1", new.epoch, DONE)))
    await asyncio.sleep(0)  # the others come while it is under way
    ends = await asyncio.gather(
        first,
        writer.put(Entry("r1", old.epoch, replace(DONE, key="late"))),
        writer.put(Entry("r1", new.epoch, replace(DONE, key="b"))),  # of the same run, by its holder
        *(writer.put(Entry("r2", other.epoch, replace(DONE, key=f"k{number}"))) for number in range(700)),
        writer.put(Entry("r2", other.epoch, replace(DONE, key="k0", result=b"2"))),
        return_exceptions=True,
    )
    assert [type(each) for each in ends if each is not None] == [StaleEpochError]
    found = await kept(database)
    assert found["r1"] == {"a": b"1", "b": b"1"}
    assert len(found["r2"]) == 700
    assert found["r2"]["k0"] == b"2"
    row = next(row for row in await rows(database, tables.journal) if row["call"] == "a")
    assert (row["label"], row["takes"], row["source"], row["namespace"]) == ("label", '["b"]', "digest", "default")


async def test_a_call_that_cannot_be_written_is_told_to_its_run_alone(database: Database) -> None:
    await add(database, NewRun(id="r1", flow="reroute"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    writer = journal_of(database)
    huge = replace(DONE, key="huge", started=2**70)  # no bigint
    first = asyncio.create_task(writer.put(Entry("r1", claimed.epoch, DONE)))
    await asyncio.sleep(0)
    good, bad, last = (writer.put(Entry("r1", claimed.epoch, each)) for each in (replace(DONE, key="b"), huge, DONE))
    ends = await asyncio.gather(first, good, bad, last, return_exceptions=True)
    assert [isinstance(each, Exception) for each in ends] == [False, False, True, False]
    assert (await kept(database))["r1"] == {"a": b"1", "b": b"1"}


async def test_whoever_waits_hears_that_the_database_is_away(database: Database) -> None:
    await add(database, NewRun(id="r1", flow="reroute"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    await database.close()
    writer = journal_of(Broken(database))
    with pytest.raises(ConnectionError):
        await writer.put(Entry("r1", claimed.epoch, DONE))


class Broken(Database):
    """One that gives no connection."""

    def __init__(self, database: Database) -> None:
        self.is_sqlite = database.is_sqlite

    def read(self) -> None:  # type: ignore[override]  # a context manager there; here it raises before one is needed
        raise ConnectionError

    begin = read  # type: ignore[assignment]  # as above
