"""The database's clock: leases, deadlines and due times of all processes use this one.

`now()` is it as an SQL expression; `Skew` is for what must be calculated before it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[int]):
    """Microseconds since the epoch, read when the statement runs (not when its transaction began)."""

    type = BigInteger()
    inherit_cache = True
    name = "penstock_now"


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: Any, **kw: Any) -> str:
    return "(extract(epoch from clock_timestamp()) * 1000000)::bigint"


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


def _machine() -> int:
    return time.time_ns() // 1_000


class Skew:
    """How far the database's clock is ahead of this machine's, as it was measured last.

    A deadline that this process sets is compared by others with `now()`: it must not depend on whose clock is wrong.
    """

    _FAR = 250_000  # microseconds: a measurement that took longer says little

    def __init__(self, machine: Callable[[], int] = _machine) -> None:
        self._machine = machine
        self._ahead: int | None = None

    def now(self) -> int:
        """Microseconds since the epoch by the database's clock, without asking it; this machine's until `measure`."""
        return self._machine() + (self._ahead or 0)

    async def measure(self, connection: AsyncConnection) -> None:
        """Ask once; half of the time that the answer takes is the error."""
        before = self._machine()
        told = (await connection.execute(select(now()))).scalar_one()
        after = self._machine()
        if self._ahead is None or after - before <= self._FAR:
            self._ahead = told - (before + after) // 2
