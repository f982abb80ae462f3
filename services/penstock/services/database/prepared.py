"""Statements that are compiled once, for the ways that every event and every run takes.

SQLAlchemy builds, keys and adapts a statement each time it runs: some 200 µs of CPU, where asyncpg needs 40 (measured
on PostgreSQL 15, one core). On PostgreSQL a prepared statement goes straight to the driver, within the transaction of
the connection it is given; on SQLite it runs as SQLAlchemy would run it. Errors are SQLAlchemy's on both.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from asyncpg.exceptions import InterfaceError as DriverInterfaceError
from asyncpg.exceptions import InternalClientError, PostgresError
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement

Row = Mapping[str, Any]
# InternalClientError: what asyncpg says when the server dies at the wrong moment; the connection is of no use then.
DRIVER_ERRORS = (PostgresError, DriverInterfaceError, InternalClientError, OSError)
_dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it without types


class one_of(ColumnElement[bool]):
    """Whether a column is one of the values of a list, given as one parameter; bytes only on PostgreSQL."""

    inherit_cache = True
    type = sa.Boolean()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column, self.bind = column, sa.bindparam(name, type_=sa.Text())
        kinds = ((sa.BigInteger | sa.Integer, "bigint[]"), (sa.LargeBinary, "bytea[]"))
        self.array = next((array for kind, array in kinds if isinstance(column.type, kind)), "text[]")


@compiles(one_of, "postgresql")
def _on_postgresql(element: one_of, compiler: Any, **kw: Any) -> str:
    bind = compiler.process(element.bind, **kw).partition("::")[0]
    return f"{compiler.process(element.column, **kw)} = ANY({bind}::{element.array})"


@compiles(one_of, "sqlite")
def _on_sqlite(element: one_of, compiler: Any, **kw: Any) -> str:
    values = f"SELECT value FROM json_each({compiler.process(element.bind, **kw)})"  # noqa: S608 -- of a bind's name
    return f"{compiler.process(element.column, **kw)} IN ({values})"


class Bulk(NamedTuple):
    """A statement whose parameters are whole columns, one array for each name: PostgreSQL runs it once for all rows.

    table: what it changes; one statement may hold several, each for other rows.
    before, after: what stands around `unnest(…)`.  kinds: the SQL type of each name's values.
    """

    table: str
    before: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    after: str

    def sql(self, first: int = 1, beside: str = "") -> str:
        """With parameters numbered from `first`.  beside: one more table to select from, with a single row."""
        arrays = ", ".join(f"CAST(${at} AS {kind}[])" for at, kind in enumerate(self.kinds, first))
        return f"{self.before} unnest({arrays}) AS given ({_listed(self.names)}){beside}{self.after}"

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """The parameters for these rows."""
        return [[row[name] for row in rows] for name in self.names]


class Prepared:
    """One statement with named parameters; safe to share between connections and tasks.

    A parameter is a text, a whole number, bytes, None, or for `one_of` a list of texts or numbers.
    """

    def __init__(self, statement: Any, sqlite_statement: Any = None, bulk: Bulk | None = None) -> None:
        """sqlite_statement: where SQLite says it in another way.  bulk: how PostgreSQL takes many rows at once."""
        self._statement, self._sqlite = statement, sqlite_statement if sqlite_statement is not None else statement
        self.bulk = bulk

    async def fetch(self, connection: AsyncConnection, **parameters: Any) -> Sequence[Row]:
        """Run it.  Returns its rows, by name; a statement without RETURNING has none."""
        if connection.dialect.name == "sqlite":
            return await self._through_sqlalchemy(connection, _plain(parameters))
        sql, order, constants = self._compiled
        values = constants | parameters
        return await self._on_driver(connection, lambda driver: driver.fetch(sql, *[values[name] for name in order]))

    async def many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row]:
        """Run it for each of these, in one round trip.  Returns all rows that come back."""
        if not rows:
            return []
        if connection.dialect.name == "sqlite":
            return await self._through_sqlalchemy(connection, [_plain(row) for row in rows])
        if len(rows) == 1:
            return await self.fetch(connection, **rows[0])
        if self.bulk is not None:
            whole, columns = self.bulk.sql(), self.bulk.columns(rows)
            return await self._on_driver(connection, lambda driver: driver.fetch(whole, *columns))
        sql, order, constants = self._compiled
        values = [[each[name] for name in order] for each in ({**constants, **row} for row in rows)]
        if self._returns:
            return await self._on_driver(connection, lambda driver: driver.fetchmany(sql, values))
        await self._on_driver(connection, lambda driver: driver.executemany(sql, values))
        return []

    async def _on_driver(self, connection: AsyncConnection, ask: Callable[[Any], Awaitable[Any]]) -> Sequence[Row]:
        return await on_driver(connection, self._compiled[0], ask)

    async def _through_sqlalchemy(self, connection: AsyncConnection, given: Any) -> Sequence[Row]:
        result = await connection.execute(self._sqlite, given)
        return cast("Sequence[Row]", result.mappings().all()) if result.returns_rows else []

    @property
    def sql(self) -> tuple[str, Sequence[str], dict[str, Any]]:
        """As PostgreSQL is asked: the text, the names of its parameters in order, the values of constant ones."""
        return self._compiled

    @cached_property
    def _returns(self) -> bool:
        return isinstance(self._statement, sa.Select) or bool(self._statement._returning)

    @cached_property
    def _compiled(self) -> tuple[str, Sequence[str], dict[str, Any]]:
        compiled = self._statement.compile(dialect=_dialect)
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return str(compiled), tuple(compiled.positiontup or ()), constants


def inserting(
    table: sa.Table,
    *names: str,
    ignore: bool = False,
    changing: Sequence[str] = (),
    returning: Sequence[str] = (),
    **expressions: Any,
) -> Prepared:
    """An INSERT of these columns from parameters of their names, and of others from SQL expressions.

    ignore: a row whose key is there already is left as it is, and not returned.  changing: these columns of it get the
    new values instead; then no two rows of one `many` may have the same key.
    """
    keys = [column.name for column in table.primary_key]
    values = {name: sa.bindparam(name, type_=table.c[name].type) for name in names} | expressions

    def build(insert: Any) -> Any:
        statement = insert(table).values(values)
        statement = statement.on_conflict_do_nothing() if ignore else statement
        if changing:
            new = {name: statement.excluded[name] for name in changing}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=new)
        return statement.returning(*(table.c[name] for name in returning)) if returning else statement

    conflict = "DO NOTHING" if ignore else ""
    if changing:
        conflict = f"({_listed(keys)}) DO UPDATE SET " + ", ".join(
            f"{_quoted(n)} = excluded.{_quoted(n)}" for n in changing
        )
    bulk = _unnesting(table, names, expressions, conflict, returning)
    return Prepared(build(postgresql.insert), build(sqlite.insert), bulk)


def deleting(table: sa.Table, name: str) -> Prepared:
    """A DELETE of the row whose column `name` has the parameter of that name."""
    column, kind = _quoted(name), table.c[name].type.compile(dialect=_dialect)
    before, after = f"DELETE FROM {_quoted(table.name)} AS old USING", f" WHERE old.{column} = given.{column}"  # noqa: S608 -- our tables
    bulk = Bulk(f"{table.name}, deleted", before, (name,), (kind,), after)
    return Prepared(sa.delete(table).where(table.c[name] == sa.bindparam(name)), bulk=bulk)


def _unnesting(
    table: sa.Table, names: Sequence[str], expressions: Mapping[str, Any], conflict: str, returning: Sequence[str]
) -> Bulk:
    """INSERT … SELECT … FROM unnest(…): the rows in the order in which they are given."""
    kinds = tuple(table.c[name].type.compile(dialect=_dialect) for name in names)
    computed = [_as_sql(each) for each in expressions.values()]
    before = f"INSERT INTO {_quoted(table.name)} ({_listed([*names, *expressions])})"
    before += f" SELECT {', '.join([_listed(names), *computed])} FROM"
    after = f" ON CONFLICT {conflict}" if conflict else ""
    after += f" RETURNING {_listed(returning)}" if returning else ""
    return Bulk(table.name, before, tuple(names), kinds, after)


def _as_sql(expression: Any) -> str:
    return str(expression.compile(dialect=_dialect, compile_kwargs={"literal_binds": True}))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    return str(_dialect.identifier_preparer.quote_identifier(name))


async def on_driver(connection: AsyncConnection, sql: str, ask: Callable[[Any], Awaitable[Any]]) -> Sequence[Row]:
    """Ask the driver beneath.  sql: what errors name.  Raises SQLAlchemy's errors."""
    driver = await driver_of(connection)
    try:
        return cast("Sequence[Row]", await ask(driver))
    except DRIVER_ERRORS as error:
        if driver.is_closed() or isinstance(error, InternalClientError):
            await connection.invalidate(error)  # or the pool would hand it out again
        raise as_sqlalchemy(sql, error) from error


async def driver_of(connection: AsyncConnection) -> Any:
    """The asyncpg connection beneath."""
    raw = await connection.get_raw_connection()
    return raw.driver_connection


def as_sqlalchemy(sql: str, error: BaseException) -> exc.DBAPIError:
    """What SQLAlchemy would have raised, so that callers know one kind of error."""
    state = getattr(error, "sqlstate", None) or ""
    kinds = {"22": exc.DataError, "23": exc.IntegrityError, "42": exc.ProgrammingError}
    if isinstance(error, ValueError):  # asyncpg's DataError: a parameter of the wrong kind
        kind: type[exc.DBAPIError] = exc.DataError
    elif isinstance(error, DriverInterfaceError | InternalClientError | OSError) or state.startswith("08"):
        return exc.InterfaceError(sql, None, cast("Exception", error), connection_invalidated=True)
    else:
        kind = kinds.get(state[:2], exc.DBAPIError)
    return kind(sql, None, cast("Exception", error))


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if _is_json(value) else value for name, value in parameters.items()}


def _is_json(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(each, bytes) for each in value)
