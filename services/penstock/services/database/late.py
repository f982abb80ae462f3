"""Rows that a transaction writes last, together: in one round trip where the database lets us.

BEGIN, a guard, five INSERTs and COMMIT are eight round trips, each of them some 100 µs of CPU here and as much in the
server. PostgreSQL takes them as one statement with data-modifying WITH queries, which is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.services.database.prepared import Bulk, Prepared, on_driver

Rows = list[Mapping[str, Any]]
Part = tuple[Prepared, Sequence[Mapping[str, Any]]]


class Writes:
    """A transaction that reads nothing: all that it will write."""

    def __init__(self) -> None:
        self.rows: dict[Prepared, Rows] = {}


_late: WeakKeyDictionary[AsyncConnection, dict[Prepared, Rows]] = WeakKeyDictionary()


def at_the_end(target: AsyncConnection | Writes, statement: Prepared, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run it for these rows just before the transaction commits, together with all others of the same statement.

    For rows that nothing in the transaction reads: ten operations in a group then cost one round trip, not ten.
    """
    if rows:
        kept = target.rows if isinstance(target, Writes) else _late.setdefault(target, {})
        kept.setdefault(statement, []).extend(rows)


async def finish(connection: AsyncConnection) -> None:
    """Run what was left for the end, in the order in which it was given."""
    for parts in _together(connection, _late.pop(connection, {})):
        if len(parts) == 1:
            await parts[0][0].many(connection, parts[0][1])
        else:
            sql = _composed(None, tuple(_bulk(statement) for statement, _ in parts))
            await _ask(connection, sql, _columns(parts))


async def write_once(connection: AsyncConnection, guard: Prepared, given: Mapping[str, Any], writes: Writes) -> bool:
    """`guard` and all of `writes` in one statement; they are written only where `guard` gives a row.

    Returns whether it did. Only where every statement has a bulk form, each for a table of its own (`composable`).
    connection: of PostgreSQL, in no transaction.
    """
    parts = list(writes.rows.items())
    text, order, constants = guard.sql
    values = constants | dict(given)
    sql = _composed((text, len(order)), tuple(_bulk(statement) for statement, _ in parts))
    found = await _ask(connection, sql, [*(values[name] for name in order), *_columns(parts)])
    return bool(found[0]["held"])


async def write_all_or_nothing(
    connection: AsyncConnection, change: Bulk, rows: Sequence[Mapping[str, Any]], writes: Writes
) -> None:
    """`change` for these rows and all of `writes` in one statement, if `change` returns as many rows as it is given.

    Else nothing is written.  Raises SQLAlchemy's error for a division by zero (SQLSTATE 22012) then: the one way to
    have a statement take back what it has done. As with `write_once` every statement of `writes` is `composable`.
    """
    parts = list(writes.rows.items())
    sql = _all_or_nothing(change, tuple(_bulk(statement) for statement, _ in parts))
    await _ask(connection, sql, [*change.columns(rows), len(rows), *_columns(parts)])


def composable(writes: Writes) -> bool:
    """Whether one statement can write all of it."""
    bulks = [statement.bulk for statement in writes.rows]
    tables = {bulk.table for bulk in bulks if bulk is not None}
    return None not in bulks and len(tables) == len(bulks)


def _together(connection: AsyncConnection, late: Mapping[Prepared, Rows]) -> Iterator[list[Part]]:
    """Neighbours that one statement can write: what one of them changes, the others do not see."""
    parts: list[Part] = []
    tables: set[str] = set()
    for statement, rows in late.items():
        bulk = statement.bulk if connection.dialect.name == "postgresql" else None
        if bulk is None or bulk.table in tables:
            yield from [parts] if parts else []
            parts, tables = [], set()
        parts.append((statement, rows))
        tables |= {bulk.table} if bulk is not None else set()
        if bulk is None:
            yield parts
            parts = []
    if parts:
        yield parts


@lru_cache(maxsize=256)
def _composed(guard: tuple[str, int] | None, bulks: tuple[Bulk, ...]) -> str:
    """guard: an UPDATE … RETURNING, and how many parameters it has."""
    first = guard[1] if guard else 0
    queries = [f"held AS ({guard[0]})"] if guard else []
    beside = ", (SELECT 1 AS is_held FROM held) AS guard" if guard else ""
    for at, bulk in enumerate(bulks):
        queries.append(f"w{at} AS ({bulk.sql(first + 1, beside)})")
        first += len(bulk.names)
    return f"WITH {', '.join(queries)} SELECT {'(SELECT count(*) FROM held)' if guard else '1'} AS held"  # noqa: S608 -- of our own statements


@lru_cache(maxsize=64)
def _all_or_nothing(change: Bulk, bulks: tuple[Bulk, ...]) -> str:
    queries, first = [f"changed AS ({change.sql()})"], len(change.names) + 2
    for at, bulk in enumerate(bulks):
        queries.append(f"w{at} AS ({bulk.sql(first)})")
        first += len(bulk.names)
    count = len(change.names) + 1
    as_wanted = f"(SELECT count(*) FROM changed) = CAST(${count} AS bigint)"  # noqa: S608 -- of our own statements
    return f"WITH {', '.join(queries)} SELECT 1 / (CASE WHEN {as_wanted} THEN 1 ELSE 0 END) AS held"


def _bulk(statement: Prepared) -> Bulk:
    assert statement.bulk is not None  # noqa: S101 -- the callers have looked
    return statement.bulk


def _columns(parts: Sequence[Part]) -> list[Any]:
    return [column for statement, rows in parts for column in _bulk(statement).columns(rows)]


async def _ask(connection: AsyncConnection, sql: str, values: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    return await on_driver(connection, sql, lambda driver: driver.fetch(sql, *values))
