"""The one way to the database: short write transactions, reads beside them, and grouped writes.

SQLite has one writer: `begin` and `write` of all tasks take turns on a single connection, with `synchronous=FULL`.
PostgreSQL has a pool. No transaction may wait for anything but the database.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock.events.errors import PenstockError
from penstock.services.database.clock import Skew
from penstock.services.database.late import Writes, at_the_end, composable, finish, write_once
from penstock.services.database.prepared import DRIVER_ERRORS, Prepared, Row, as_sqlalchemy, driver_of

Result = TypeVar("Result")
_END_ABANDONED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = :name
AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND wait_event_type = 'Client'
AND state_change < clock_timestamp() - make_interval(secs => :seconds)
"""
Operation = Callable[[AsyncConnection], Awaitable[Result]]

_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_NAME = "penstock"  # of our sessions in pg_stat_activity
_GROUP = 256  # operations in one grouped transaction
# A process that was stopped amid a transaction keeps its locks, and takers of its leases would wait for it.
_ABANDONED_AFTER = timedelta(seconds=5)
# The database gave up on the transaction: 25P03 idle for too long, 40 deadlock, 53 out of something, 57P shutting down.
_PASSING = ("25P03", "40", "53", "57P", "08")


class DatabaseUnavailableError(PenstockError):
    """The database cannot be reached, or ended the connection; nothing of the transaction was stored."""


class DatabaseUrlError(PenstockError):
    """The URL names no database that we know.  It is not shown: a password may stand in it."""


class StaleEpochError(PenstockError):
    """The writer is no longer the owner: another one has taken over since."""


class Database:
    """A connection to PostgreSQL or SQLite; made by `connect`, closed by `close`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, abandoned_after: timedelta = _ABANDONED_AFTER) -> None:
        self._writer, self._reader = writer, reader
        self._abandoned_after = abandoned_after
        self.is_sqlite = writer.dialect.name == "sqlite"
        self.skew = Skew()  # measured by whoever renews leases
        self._turn = asyncio.Lock()  # SQLite: whose turn it is on the one write connection
        self._group: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine, for migrations."""
        return self._writer

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One write transaction: committed at the end, rolled back by an exception."""
        if not self.is_sqlite:
            async with self._writer.connect() as connection, _transaction(connection):
                yield connection
                await finish(connection)
            return
        async with self._turn, self._writer.begin() as connection:
            yield connection
            await finish(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading."""
        async with self._reader.connect() as connection:
            yield connection

    async def alone(self, statement: Prepared, **parameters: Any) -> Sequence[Row]:
        """One statement as a transaction of its own.  Returns its rows."""
        async with self.begin() if self.is_sqlite else self.read() as connection:
            return await statement.fetch(connection, **parameters)

    async def at_once(self, guard: Prepared, given: Mapping[str, Any], writes: Writes) -> bool:
        """All of `writes` as one transaction, if `guard` with the parameters `given` gives a row.

        guard: an UPDATE … RETURNING that proves whose turn it is.  Returns whether it did; else nothing is written.
        """
        if not self.is_sqlite and composable(writes):
            async with self.read() as connection:
                return await write_once(connection, guard, given, writes)
        async with self.begin() as connection:
            if not await guard.fetch(connection, **given):
                return False
            for statement, rows in writes.rows.items():
                at_the_end(connection, statement, rows)
        return True

    async def write(self, operation: Operation[Result]) -> Result:
        """Run `operation(connection)` in a transaction shared with whatever else is waiting (group commit).

        Returns after the commit. The operation may be run a second time, alone, when another one of its group
        fails; so it must do nothing but talk to the database.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._group.append((operation, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._group:
            group, self._group = self._group[:_GROUP], self._group[_GROUP:]
            try:
                await self._run_group(group)
            except BaseException as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise

    async def _run_group(self, group: list[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        try:
            async with self.begin() as connection:
                results = [await operation(connection) for operation, _ in group]
        except Exception as error:
            if len(group) == 1:
                if not group[0][1].done():
                    group[0][1].set_exception(error)
                return
            for each in group:  # one is at fault; the others must not suffer for it
                await self._run_group([each])
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def end_abandoned(self) -> int:
        """End our sessions, of any process, that stopped halfway through sending a transaction.  Returns how many.

        PostgreSQL's own timeout counts between statements, not while it waits for the rest of a pipeline of them.
        """
        if self.is_sqlite:
            return 0
        query = sa.text(_END_ABANDONED).bindparams(name=_NAME, seconds=self._abandoned_after.total_seconds())
        async with self._reader.connect() as connection:
            return len((await connection.execute(query)).all())

    def insert(self, table: Table) -> Any:
        """An INSERT that knows ON CONFLICT on both databases."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def close(self) -> None:
        """Close all connections; safe to call twice."""
        if self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher], timeout=5)
        await self._writer.dispose()
        await self._reader.dispose()


def connect(url: str, *, pool_size: int = 20, abandoned_after: timedelta = _ABANDONED_AFTER) -> Database:
    """Connect lazily to `postgresql+asyncpg://…` or `sqlite+aiosqlite:///path`.  Raises DatabaseUrlError.

    `postgresql://…`, `postgres://…` and `sqlite:///…` are taken for these.
    abandoned_after: PostgreSQL rolls back a transaction in which nothing was asked for so long.
    """
    url = _with_driver(url)
    if url.startswith("sqlite"):
        return Database(_sqlite_engine(url, 1), _sqlite_engine(url, 4))
    idle = str(round(abandoned_after.total_seconds() * 1_000))
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size // 2,
        pool_pre_ping=False,
        pool_recycle=1800,
        isolation_level="AUTOCOMMIT",  # a reader needs no transaction; a writer opens its own
        connect_args={"server_settings": {"application_name": _NAME, "idle_in_transaction_session_timeout": idle}},
    )
    return Database(engine, engine, abandoned_after)


@asynccontextmanager
async def _transaction(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction that is opened on the driver, for prepared statements and SQLAlchemy's alike."""
    driver = await driver_of(connection)
    try:
        transaction = driver.transaction()
        await transaction.start()
    except DRIVER_ERRORS as error:
        await connection.invalidate(error)
        raise as_sqlalchemy("BEGIN", error) from error
    try:
        yield
    except BaseException:
        try:
            await transaction.rollback()
        except BaseException as error:
            await connection.invalidate(error)  # what is left of it ends with the connection
            if not isinstance(error, Exception):
                raise
        raise
    try:
        await transaction.commit()
    except BaseException as error:
        await connection.invalidate(error)
        if isinstance(error, DRIVER_ERRORS):
            raise as_sqlalchemy("COMMIT", error) from error
        raise


def _with_driver(url: str) -> str:
    scheme, found, rest = url.partition("://")
    scheme = _DRIVERS.get(scheme, "")
    try:
        sa.make_url(f"{scheme}{found}{rest}")
    except (ArgumentError, ValueError):
        scheme = ""
    if not scheme:
        raise DatabaseUrlError(
            "PENSTOCK_DATABASE_URL is no URL that Penstock knows; write postgresql+asyncpg://user:password@host/name"
            " or sqlite+aiosqlite:///path"
        )
    return f"{scheme}{found}{rest}"


def unavailable(error: BaseException) -> bool:
    """Whether the database (not what was asked of it) is at fault: try the same again later."""
    if isinstance(error, DBAPIError):
        return (
            bool(error.connection_invalidated)
            or type(error.orig).__name__ == "InternalClientError"  # asyncpg, when the server dies at the wrong moment
            or (getattr(error.orig, "sqlstate", None) or "").startswith(_PASSING)
            or isinstance(error, InterfaceError)
            or (isinstance(error, OperationalError) and not _is_refusal(error))
        )
    return isinstance(error, ConnectionError | TimeoutError | OSError | DatabaseUnavailableError)


def is_broken(error: BaseException) -> bool:
    """Whether the statement itself cannot run (a missing table or column): no record is at fault, the schema is."""
    return isinstance(error, ProgrammingError) or (isinstance(error, OperationalError) and _is_refusal(error))


def _is_refusal(error: OperationalError) -> bool:
    return "no such" in str(error.orig) or "syntax" in str(error.orig)


def _insist(cursor: Any, statement: str) -> None:
    """SQLite does not wait for another connection that is just switching to WAL, whatever `busy_timeout` says."""
    for _ in range(100):
        try:
            cursor.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        time.sleep(0.02)
    cursor.execute(statement)


def _sqlite_engine(url: str, connections: int) -> AsyncEngine:
    engine = create_async_engine(
        url, poolclass=AsyncAdaptedQueuePool, pool_size=connections, max_overflow=0, connect_args={"timeout": 30}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            _insist(cursor, f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "invalidate")
    def _let_go(connection: Any, record: Any, error: BaseException | None) -> None:
        """A task was cancelled amid a statement: its connection is closed, but a cursor that nobody read keeps SQLite's
        own connection, and its lock, alive. A rollback before the close, in the connection's own queue, frees it.
        """
        driver = connection.driver_connection
        if driver._connection is not None:
            driver._tx.put_nowait((None, driver._connection.rollback))

    if connections == 1:  # the writer takes its lock at BEGIN, not at its first write

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
