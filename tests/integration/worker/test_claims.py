"""Claims: one holder at a time, by priority and due time, taken over when a lease ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support.runs import add, claimer, end_leases, look, make_due, rows, run_row, states, told

from penstock.automations.pools import Order
from penstock.flows.journal import TaskCall
from penstock.flows.states import State
from penstock.services.database import Database, StaleEpochError, clock, connect, tables
from penstock.services.runs import NewRun, change_state, record_calls
from penstock.services.turns import POINT, rank
from penstock.services.worker import claims
from penstock.services.worker.claims import ClaimedRun, Claimer, give_back, renew


async def begin(database: Database, claimed: ClaimedRun) -> None:
    async with database.begin() as connection:
        await change_state(connection, claimed.id, claimed.epoch, State.RUNNING)


async def test_two_workers_never_claim_one_run(any_database_url: str, database: Database) -> None:
    await add(database, *(NewRun(f"r{n:03}", "reroute") for n in range(200)))
    other = connect(any_database_url)
    found: list[str] = []

    async def work(through: Database, name: str) -> None:
        while got := (await look(through, claimer(name), 7)).claimed:
            found.extend(each.id for each in got)

    try:
        await asyncio.gather(work(database, "w1"), work(other, "w2"), work(database, "w3"), work(other, "w4"))
    finally:
        await other.close()
    # A look may find nothing while another one holds the last rows; whatever is left is free.
    found.extend(each.id for each in (await look(database, claimer("w1"), 100)).claimed)
    assert sorted(found) == [f"r{n:03}" for n in range(200)]
    assert {row["epoch"] for row in await rows(database, tables.run)} == {1}


async def test_the_highest_priority_then_the_longest_due_comes_first(database: Database) -> None:
    await add(database, NewRun("a", "reroute"))
    await add(database, NewRun("b", "reroute"))
    await add(database, NewRun("c", "reroute", priority=5))
    assert [each.id for each in (await look(database, claimer("w1"), 2)).claimed] == ["c", "a"]
    given = await look(database, claimer("w1"), 2)
    assert ([each.id for each in given.claimed], given.more) == (["b"], False)


async def order_of(database: Database, who: Claimer, most: int = 100) -> list[str]:
    return [each.id for each in (await look(database, who, most)).claimed]


async def test_a_key_with_many_runs_does_not_block_another(database: Database) -> None:
    await add(database, *(NewRun(f"many{n:03}", "reroute", fairness_key="truck/1") for n in range(300)))
    await add(database, *(NewRun(f"few{n}", "reroute", fairness_key="truck/2") for n in range(3)))
    await add(database, NewRun("other", "another"))
    who = claimer("w1", flows=("reroute", "another"))
    assert await order_of(database, who, 7) == ["many000", "few0", "other", "many001", "few1", "many002", "few2"]


async def test_a_point_of_priority_is_worth_a_minute_of_waiting_unless_the_pool_is_strict(database: Database) -> None:
    await add(database, NewRun("low", "reroute"), NewRun("high", "reroute", priority=3))
    minutes_ago = {"due_at": tables.run.c.due_at - 4 * POINT, "rank": tables.run.c.rank - 4 * POINT}
    async with database.begin() as connection:  # as if it had been made four minutes earlier
        await connection.execute(sa.update(tables.run).where(tables.run.c.id == "low").values(minutes_ago))
    await add(database, NewRun("higher", "reroute", priority=5))
    for who, order in [(claimer("w1"), ["higher", "low", "high"]), (claimer("w2"), ["higher", "high", "low"])]:
        strict = replace(who, order=Order.STRICT) if who.worker == "w2" else who
        assert await order_of(database, strict) == order
        await end_leases(database)


async def test_a_worker_of_some_queues_leaves_the_others(database: Database) -> None:
    await add(database, NewRun("a", "reroute"), NewRun("b", "reroute", queue="bulk"), NewRun("c", "reroute", queue="x"))
    assert await order_of(database, replace(claimer("w1"), queues=("bulk", "x"))) == ["b", "c"]
    assert await order_of(database, claimer("w2")) == ["a"]


async def test_the_database_ranks_runs_as_the_page_of_turns_says(database: Database) -> None:
    await add(database, NewRun("ended", "reroute", fairness_key="b"))
    async with database.begin() as connection:
        await change_state(connection, "ended", None, State.CANCELLED)
    kinds = [("a", 0), ("b", 0), ("a", 0), ("a", 2), ("a", 0), ("a", 2), ("b", -1), ("x" * 500, 0), ("x" * 500, 0)]
    await add(database, *(NewRun(f"r{n}", "reroute", fairness_key=k, priority=p) for n, (k, p) in enumerate(kinds)))
    waiting: dict[tuple[str, int], list[int]] = {}
    for row in await rows(database, tables.run, tables.run.c.state == "pending"):
        same = waiting.setdefault((row["fairness_key"], row["priority"]), [])
        assert row["rank"] == rank(row["due_at"], row["priority"], same)
        same.append(row["rank"])
    assert [len(each) for each in waiting.values()] == [3, 1, 2, 1, 2]


async def test_runs_of_other_flows_pools_namespaces_and_formats_are_left_alone(database: Database) -> None:
    await add(
        database,
        NewRun("flow", "another"),
        NewRun("pool", "reroute", pool="gpu"),
        NewRun("space", "reroute", namespace="team"),
        NewRun("format", "reroute"),
    )
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).where(tables.run.c.id == "format").values(format=2))
    assert (await look(database, claimer("w1"), 10)).claimed == []


async def test_a_lease_is_on_the_clock_of_the_database(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    await look(database, claimer("w1", lease=timedelta(seconds=60)))
    async with database.read() as connection:
        rest = await connection.scalar(sa.select(tables.run.c.lease_until - clock.now()))
    assert rest is not None
    assert 50_000_000 < rest <= 60_000_000


async def test_a_running_run_is_taken_over_when_its_lease_has_ended(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    (first,) = (await look(database, claimer("w1"))).claimed
    await begin(database, first)
    async with database.begin() as connection:
        done = TaskCall("a", "", "step", State.COMPLETED, b"7", 1, 2)
        await record_calls(connection, "r1", first.epoch, [done])
    assert (await look(database, claimer("w2"))).claimed == []
    await end_leases(database)
    (second,) = (await look(database, claimer("w2"))).claimed
    assert (second.epoch, second.state, second.recorded) == (2, State.PENDING, {"a": b"7"})
    assert (first.tries, second.tries) == (1, 2)
    await begin(database, second)
    assert await states(database, "r1") == ["pending", "running", "pending", "running"]
    assert (await told(database, "r1"))[2]["data"]["detail"] == "the lease of worker w1 ended"


async def test_a_renewal_extends_what_is_still_ours(database: Database) -> None:
    await add(database, *(NewRun(name, "reroute") for name in "abc"))
    held = {each.id: each.epoch for each in (await look(database, claimer("w1"), 3)).claimed}
    async with database.begin() as connection:
        await change_state(connection, "b", None, State.CANCELLED)
        await connection.execute(sa.update(tables.run).where(tables.run.c.id == "c").values(worker="w2", epoch=2))
        assert await renew(connection, "w1", timedelta(minutes=5), held) == {"a"}
    row = await run_row(database, "a")
    assert row["lease_until"] - row["created"] > 280_000_000


async def test_a_run_that_was_given_back_keeps_its_attempts(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    for _ in range(7):
        (claimed,) = (await look(database, claimer("w1", attempts=2))).claimed
        await begin(database, claimed)
        async with database.begin() as connection:
            assert await give_back(connection, claimed, State.PENDING, detail="the worker stops")
    row = await run_row(database, "r1")
    assert (row["attempt"], row["epoch"], row["worker"]) == (0, 7, None)


async def test_a_parked_run_is_claimed_when_it_is_due_and_parking_it_again_is_no_change(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    async with database.begin() as connection:
        assert await give_back(connection, claimed, State.WAITING, wait=timedelta(hours=1))
    assert (await look(database, claimer("w1"))).claimed == []
    await make_due(database)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    assert claimed.state is State.WAITING
    async with database.begin() as connection:
        assert not await give_back(connection, claimed, State.WAITING, wait=timedelta(hours=1))
        with pytest.raises(StaleEpochError):
            await give_back(connection, replace(claimed, epoch=1), State.WAITING)
    assert await states(database, "r1") == ["pending", "waiting"]
    assert (await run_row(database, "r1"))["worker"] is None


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
async def test_a_run_that_kills_its_workers_is_given_up(database: Database, state: State) -> None:
    await add(database, NewRun("r1", "reroute"))
    who = claimer("w1", attempts=3)
    for _ in range(3):
        (claimed,) = (await look(database, who)).claimed
        if state is State.RUNNING:
            await begin(database, claimed)
        await end_leases(database)
    given = await look(database, who)
    assert (given.claimed, [row["id"] for row in given.crashed]) == ([], ["r1"])
    row = await run_row(database, "r1")
    assert (row["state"], row["worker"]) == ("crashed", None)
    assert "claimed 3 times" in row["error"]
    assert (await look(database, who)).crashed == []


async def test_a_retry_that_kills_its_worker_before_it_runs_is_given_up_too(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    await begin(database, claimed)
    async with database.begin() as connection:
        await give_back(connection, claimed, State.RETRYING, attempt=1)
    assert [row["id"] for row in (await look(database, claimer("w1", attempts=1))).crashed] == ["r1"]
    assert await states(database, "r1") == ["pending", "running", "retrying", "pending", "crashed"]


async def test_a_column_that_a_newer_release_added_is_ignored(database: Database) -> None:
    await add(database, NewRun("r1", "reroute"))
    async with database.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE run ADD COLUMN colour TEXT"))
        await connection.execute(sa.text("UPDATE run SET colour = 'green'"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    await begin(database, claimed)
    assert (await run_row(database, "r1"))["state"] == "running"


async def test_runs_that_have_ended_or_wait_do_not_weigh_on_a_claim(database: Database) -> None:
    """Each kind of run that can be claimed has an index of its own; 20,000 others are none of them."""
    same = {"flow": "reroute", "parameters": "{}", "created": 1}
    ended = [same | {"id": f"e{n}", "state": "completed", "due_at": 1} for n in range(10_000)]
    later = [same | {"id": f"w{n}", "state": "waiting", "due_at": 2**60} for n in range(10_000)]
    async with database.begin() as connection:
        await connection.execute(sa.insert(tables.run), [*ended, *later])
        await connection.execute(sa.text("ANALYZE"))
    await add(database, NewRun("r1", "reroute"))
    flows, explain = ('["reroute"]', "EXPLAIN QUERY PLAN") if database.is_sqlite else ("{reroute}", "EXPLAIN")
    query = claims.claimable().params(pool="default", namespace="default", flows=flows, most=4)
    async with database.read() as connection:
        text = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        plan = "\n".join(str(tuple(row)) for row in await connection.execute(sa.text(f"{explain} {text}")))
    assert all(name in plan for name in ("ix_run_ranked", "ix_run_parked", "ix_run_held"))
    assert [each.id for each in (await look(database, claimer("w1"), 4)).claimed] == ["r1"]
