"""`penstock run` and `penstock runs …`, against an API without workers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.command_line import Running

from penstock.flows.states import State
from penstock.services.database import tables
from penstock.services.runs import LogLine, NewRun, change_state, create_runs, write_logs

SCHEMA = {
    "type": "object",
    "properties": {"truck": {"type": "string"}, "n": {"type": "integer"}, "stops": {"type": "array"}},
    "required": ["truck"],
    "additionalProperties": False,
}


async def insert(running: Running, table: sa.Table, **row: Any) -> None:
    async with running.api.context.database.begin() as connection:
        await connection.execute(sa.insert(table).values(**row))


async def add(running: Running, *names: str, flow: str = "ship") -> None:
    async with running.api.context.database.begin() as connection:
        await create_runs(connection, [NewRun(name, flow) for name in names])


async def move(running: Running, run_id: str, *new: State, **columns: Any) -> None:
    async with running.api.context.database.begin() as connection:
        for each in new:
            more = columns if each is new[-1] else {}
            await change_state(connection, run_id, None, each, **more)


async def log(running: Running, run_id: str, epoch: int, line: str) -> None:
    async with running.api.context.database.begin() as connection:
        await write_logs(connection, run_id, epoch, [LogLine(1, "INFO", line)])


@pytest.fixture
def ship(running: Running) -> Running:
    """An API that knows the flow `ship`."""
    row = {"name": "ship", "pool": "default", "module": "flows", "parameters": json.dumps(SCHEMA)}
    running.do(insert(running, tables.flow, updated=1, **row))
    return running


def test_a_run_is_made_with_typed_parameters(ship: Running, penstock: Any, tmp_path: Path) -> None:
    (tmp_path / "stops.json").write_text('["Linz"]\n')
    code, out, _ = penstock("run", "ship", "--param", "truck=7", "-p", "n=7", "-p", f"stops=@{tmp_path}/stops.json")
    [found] = json.loads(penstock("runs", "list", "--format", "json")[1])
    assert (code, out) == (0, f"{found['id']}\n")
    assert found["parameters"] == {"truck": "7", "n": 7, "stops": ["Linz"]}
    assert penstock("run", "ship", "-p", "truck=@@home")[0] == 0
    assert json.loads(penstock("runs", "list", "--json")[1])[0]["parameters"] == {"truck": "@home"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["shp"], 1, "did you mean `ship`?"),
        (["shp", "-p", "truck=7"], 1, "did you mean `ship`?"),
        (["ship"], 1, "'truck' is missing"),
        (["ship", "-p", "truck=7", "-p", "n=many"], 1, """'n' is "many", not of type integer"""),
        (["ship", "-p", "trukc=7"], 1, "did you mean `truck`?"),
        (["ship", "-p", "truck=@nowhere.json"], 1, "cannot read 'nowhere.json'"),
        (["ship", "-p", "truck"], 2, "NAME=VALUE"),
        (["ship", "-p", "truck=1", "-p", "truck=2"], 2, "given twice"),
    ],
)
def test_what_cannot_run_makes_no_run(ship: Running, penstock: Any, arguments: list[str], code: int, told: str) -> None:
    found, out, err = penstock("run", *arguments)
    assert (found, out, told in err) == (code, "", True), err
    assert penstock("runs", "list")[1] == "no runs\n"


@pytest.mark.parametrize(("end", "code"), [(State.COMPLETED, 0), (State.FAILED, 1)])
def test_a_watched_run_ends_with_the_exit_code_of_its_end(ship: Running, penstock: Any, end: State, code: int) -> None:
    async def carry_out() -> None:
        """What a worker does, as soon as there is a run."""
        database = ship.api.context.database
        while True:
            async with database.read() as connection:
                run_id = (await connection.execute(sa.select(tables.run.c.id))).scalar()
            if run_id is not None:
                break
        await move(ship, run_id, State.RUNNING)
        await log(ship, run_id, 1, "off we go")
        await move(ship, run_id, end, error=None if end is State.COMPLETED else "ValueError: no")

    working = threading.Thread(target=lambda: ship.do(carry_out()))
    working.start()
    found, out, _ = penstock("run", "ship", "-p", "truck=7", "--watch")
    working.join()
    assert found == code
    lines = out.splitlines()
    assert any(line.endswith("STATE    running") for line in lines)
    assert any(line.endswith("INFO     off we go") for line in lines)
    assert lines[-1].endswith(": completed" if code == 0 else ": failed: ValueError: no")


def test_logs_are_followed_until_the_run_has_ended(running: Running, penstock: Any) -> None:
    running.do(add(running, "r1"))
    running.do(move(running, "r1", State.RUNNING))
    running.do(log(running, "r1", 1, "first"))
    ending = threading.Timer(0.2, lambda: running.do(end()))

    async def end() -> None:
        await log(running, "r1", 1, "second")
        await move(running, "r1", State.COMPLETED)

    ending.start()
    code, out, _ = penstock("runs", "logs", "r1", "--follow")
    ending.join()
    assert (code, [line.split()[-1] for line in out.splitlines()]) == (0, ["first", "second"])


def test_runs_are_steered_one_by_one(running: Running, penstock: Any) -> None:
    running.do(add(running, "r1", "r2"))
    assert penstock("runs", "suspend", "r1")[:2] == (0, "r1: paused\n")
    assert penstock("runs", "resume", "r1")[:2] == (0, "r1: goes on\n")
    assert penstock("runs", "cancel", "r1", "r2", "--reason", "not today")[1] == "r1: cancelled\nr2: cancelled\n"
    assert "not today" in penstock("runs", "show", "r1")[1]
    code, out, err = penstock("runs", "cancel", "r1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "only a run that is" in err
    assert penstock("runs", "retry", "r1", "--from-start")[:2] == (0, "r1: is tried again\n")
    code, out, err = penstock("runs", "retry", "r1", "r2")  # one is refused, the other is done
    assert (code, out, "r1 is retrying" in err) == (1, "r2: is tried again\n", True)


def test_many_runs_need_a_yes(running: Running, penstock: Any) -> None:
    running.do(add(running, "r1", "r2"))
    running.do(add(running, "other", flow="report"))
    code, out, err = penstock("runs", "cancel", "--flow", "ship", "--since", "1h")
    assert (code, out, "this would cancel 2 runs; add --yes" in err) == (1, "r1\nr2\n", True)
    assert penstock("runs", "list", "--state", "cancelled")[1] == "no runs\n"
    assert penstock("runs", "cancel", "--flow", "ship", "--yes")[1].splitlines()[-1] == "cancel: 2 runs"
    assert penstock("runs", "cancel", "--flow", "ship")[:2] == (0, "no run to cancel\n")
    assert "other" in penstock("runs", "list", "--state", "pending")[1]
    for wrong in ([], ["r1", "--flow", "ship"]):
        code, _, err = penstock("runs", "cancel", *wrong)
        assert (code, "--flow" in err) == (2, True)


def test_runs_are_shown_page_by_page_with_what_they_wait_for(running: Running, penstock: Any) -> None:
    running.do(add(running, "r1", "r2", "r3"))
    first = penstock("runs", "list", "--limit", "2")[1].splitlines()
    assert first[-1] == "older ones: penstock runs list --limit 2 --before r2"
    assert "r1" in penstock("runs", "list", "--limit", "2", "--before", "r2")[1]
    assert "a worker of pool 'default', and none is online" in penstock("runs", "show", "r1")[1]
