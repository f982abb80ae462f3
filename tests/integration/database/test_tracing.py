"""What a trace reads is found by an index, however many decisions there are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable

from penstock.services.api.timeline import decisions_of
from penstock.services.database import Database, connect, migrate, tables

IDS = ["e1", 'quo"te', "back\\slash", "per%cent", "under_score", "ümlaut", "😀", "a/b"]


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    made = connect(any_database_url)
    await migrate.upgrade(made)
    async with made.begin() as connection:
        await connection.execute(sa.insert(tables.decision), [decision(id_) for id_ in IDS])
    yield made
    await made.close()


def decision(event: str) -> dict[str, object]:
    """One that two events took part in, the first of which is no root cause."""
    ids = {"id": f"of {event}", "events": json.dumps([event, f"last {event}"]), "correlationid": f"last {event}"}
    return {"automation": "a", "when_digest": "w", "kind": "fired", "key": "null", "at": 1, "created": 1, **ids}


@pytest.mark.parametrize("event", IDS)
async def test_a_decision_is_found_by_any_event_that_took_part(database: Database, event: str) -> None:
    async with database.read() as connection:
        for id_ in (event, f"last {event}"):
            query = decisions_of("default", id_, sqlite=database.is_sqlite)
            assert [row.id for row in await connection.execute(query)] == [f"of {event}"]
        for id_ in (event[:-1], "last"):
            assert (await connection.execute(decisions_of("default", id_, sqlite=database.is_sqlite))).all() == []


class Explained(Executable, ClauseElement):
    """EXPLAIN of a query."""

    inherit_cache = False

    def __init__(self, query: sa.Select[Any]) -> None:
        self.query = query


@compiles(Explained)
def _explained(element: Explained, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN " + compiler.process(element.query, **options)


async def test_postgresql_reads_no_table_from_end_to_end_for_it(postgres_url: str) -> None:
    database = connect(postgres_url)
    await migrate.upgrade(database)
    async with database.begin() as connection:
        await connection.execute(sa.insert(tables.decision), [decision(f"e{number}") for number in range(3_000)])
        await connection.execute(sa.text("ANALYZE decision"))
        found = await connection.execute(Explained(decisions_of("default", "e1", sqlite=False)))
        plan = "\n".join(line for (line,) in found)
    await database.close()
    assert "ix_decision_events" in plan
    assert "ix_decision_correlationid" in plan
    assert "Seq Scan" not in plan
