"""The states of a match partition in the database: loaded on demand, written once a batch.

`state.expires_at` is the clock at which a row must be looked at again: a timer, or the end of all that it remembers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import Instant
from penstock.services.database import clock
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import Prepared, Row, deleting, inserting, one_of
from penstock.services.database.tables import seen, state
from penstock.services.engine.correlation import NEVER, AnyState, Kept, Place, encode
from penstock.triggers import deduping
from penstock.triggers import state as key_state

FORMAT = 2  # 1 was never released
DUE = 500  # states in one transaction of timers
LARGE = 64 * 1024  # bytes of one state
_AGAIN = 60.0  # seconds until it is said again of one that it is larger
_log = structlog.get_logger()

_columns = (
    state.c.id,
    state.c.automation,
    state.c.when_digest,
    state.c.key,
    state.c.body,
    state.c.format,
    state.c.expires_at,
)
_load = Prepared(sa.select(*_columns).where(one_of(state.c.id, "ids")))
_due = Prepared(
    sa.select(*_columns)
    .where(state.c.partition == sa.bindparam("number"), state.c.expires_at <= sa.bindparam("now"))
    .order_by(state.c.expires_at)
    .limit(DUE)
)
_of_rules = Prepared(
    sa.select(*_columns)
    .where(
        state.c.partition == sa.bindparam("number"),
        one_of(state.c.automation, "names"),
        state.c.id > sa.bindparam("after"),
        ~state.c.key.startswith("dedupe:"),
        state.c.format == FORMAT,
    )
    .order_by(state.c.id)
    .limit(DUE)
)
_next = Prepared(
    sa.select(sa.func.min(state.c.expires_at).label("due")).where(
        state.c.partition == sa.bindparam("number"), state.c.expires_at > sa.bindparam("after")
    )
)
_delete = deleting(state, "id")
_known = Prepared(
    sa.select(state.c.automation, state.c.when_digest).where(state.c.partition == sa.bindparam("number")).distinct()
)
_forget = Prepared(
    sa.delete(state).where(
        state.c.partition == sa.bindparam("number"),
        state.c.automation == sa.bindparam("rule"),
        state.c.when_digest == sa.bindparam("digest"),
    )
)
_DEDUPED = "dedupe:"  # before the key of a row of `dedupe`


_save = inserting(
    state,
    *("id", "namespace", "automation", "when_digest", "key", "partition", "body", "format", "expires_at"),
    updated=clock.now(),
    changing=("body", "format", "expires_at", "updated"),
)


def _beginning(known: sa.ColumnElement[bool]) -> sa.CompoundSelect[Any]:
    """The states of some places, those that are due, the next one after them, and known identities, as one list."""

    def rows(what: str, query: sa.Select[Any] | None = None) -> sa.Select[Any]:
        source = state if query is None else query.subquery()
        columns = [source.c[each.name] for each in _columns]
        return sa.select(sa.literal_column(f"'{what}'").label("what"), *columns)

    here, now = state.c.partition == sa.bindparam("number"), sa.bindparam("now", type_=sa.BigInteger())
    due = sa.select(*_columns).where(here, state.c.expires_at <= now).order_by(state.c.expires_at).limit(DUE)
    further = sa.select(*_columns).where(here, state.c.expires_at > now).order_by(state.c.expires_at).limit(1)
    none = [sa.cast(sa.null(), each.type) if each.name != "body" else seen.c.digest for each in _columns]
    remembered = sa.select(sa.literal_column("'seen'"), *none).where(seen.c.partition == sa.bindparam("number"), known)
    of_places = rows("state").where(one_of(state.c.id, "ids"))
    return sa.union_all(of_places, rows("due", due), rows("next", further), remembered)


_begin = Prepared(
    _beginning(one_of(seen.c.digest, "digests")),
    _beginning(seen.c.digest.in_(sa.bindparam("digests", expanding=True))),  # JSON, as `one_of` has it, has no bytes
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is stored of what a batch is about.

    states: of the places asked for.  due: all that must be looked at, each with the clock at which.  further: the first
    clock after these at which something must be.  known: which of the identities asked for took part before.
    """

    states: dict[Place, AnyState]
    due: dict[Place, Kept]
    further: Instant
    known: set[bytes]


class TooManyDueError(Exception):
    """More timers than should ring in a transaction that has other things to do."""


class States:
    """The rows of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._told: dict[Place, float] = {}  # when it was said of one that it is large

    async def load(self, connection: AsyncConnection, places: Iterable[Place]) -> dict[Place, AnyState]:
        """Those of these places that are stored."""
        ids = {place.id(self._namespace): place for place in places}
        rows = await _load.fetch(connection, ids=list(ids)) if ids else []
        return {ids[row["id"]]: _state(row["body"], ids[row["id"]]) for row in rows if row["format"] == FORMAT}

    async def due(self, connection: AsyncConnection, partition: int, now: Instant) -> dict[Place, AnyState]:
        """Some of those that must be looked at, the longest due first; there may be more where there are DUE."""
        found: dict[Place, AnyState] = {}
        for row in await _due.fetch(connection, number=partition, now=now):
            place = _place(row)
            empty = deduping.UNSEEN if place.deduped else key_state.EMPTY  # of another format: its row goes
            found[place] = _state(row["body"], place) if row["format"] == FORMAT else empty
        return found

    async def begin(
        self,
        connection: AsyncConnection,
        partition: int,
        places: Iterable[Place],
        digests: Sequence[bytes],
        now: Instant,
    ) -> Found:
        """What a batch needs, in one round trip.  now: the clock at its end.  Raises TooManyDueError."""
        ids = {place.id(self._namespace): place for place in places}
        rows = await _begin.fetch(connection, number=partition, ids=list(ids), digests=list(digests), now=now)
        by_kind: dict[str, list[Row]] = {"state": [], "due": [], "next": [], "seen": []}
        for row in rows:
            by_kind[row["what"]].append(row)
        due = by_kind["due"]
        if len(due) >= DUE or any(row["format"] != FORMAT for row in due):
            raise TooManyDueError
        return Found(
            states={
                ids[row["id"]]: _state(row["body"], ids[row["id"]])
                for row in by_kind["state"]
                if row["format"] == FORMAT
            },
            due={place: Kept(_state(row["body"], place), row["expires_at"]) for row in due for place in [_place(row)]},
            further=min((int(row["expires_at"]) for row in by_kind["next"]), default=NEVER),
            known={bytes(row["body"]) for row in by_kind["seen"]},
        )

    async def of_rules(
        self, connection: AsyncConnection, partition: int, names: Sequence[str], after: str
    ) -> dict[Place, AnyState]:
        """Some states of these automations, by id; `after`: the last id of those before."""
        found: dict[Place, AnyState] = {}
        for row in await _of_rules.fetch(connection, number=partition, names=list(names), after=after):
            if row["format"] == FORMAT and not row["key"].startswith(_DEDUPED):
                place = Place(row["automation"], row["when_digest"], row["key"])
                found[place] = _state(row["body"], place)
        return found

    async def next_due(self, connection: AsyncConnection, partition: int, *, after: Instant = -NEVER) -> Instant:
        """When the first one must be looked at that need not be at `after` already; NEVER where there is none."""
        rows = await _next.fetch(connection, number=partition, after=after)
        return NEVER if rows[0]["due"] is None else int(rows[0]["due"])

    async def forget(self, connection: AsyncConnection, partition: int, meanings: Collection[tuple[str, str]]) -> None:
        """Delete what belongs to rules that are gone, or that say something else in `when` now."""
        for row in await _known.fetch(connection, number=partition):
            if (row["automation"], row["when_digest"]) not in meanings:
                gone = {"rule": row["automation"], "digest": row["when_digest"]}
                await _forget.fetch(connection, number=partition, **gone)

    def save(
        self, target: AsyncConnection | Writes, partition: int, kept: Mapping[Place, Kept], permanent: frozenset[Place]
    ) -> None:
        """Write what changed, with the transaction's end.

        permanent: places whose row stays although the state is empty: it says that the rule was loaded.
        """
        gone = [place.id(self._namespace) for place, each in kept.items() if each.empty and place not in permanent]
        at_the_end(target, _delete, [{"id": each} for each in gone])
        staying = {place: each for place, each in kept.items() if not each.empty or place in permanent}
        rows: list[dict[str, Any]] = [
            {
                "id": place.id(self._namespace),
                "namespace": self._namespace,
                "automation": place.automation,
                "when_digest": place.when_digest,
                "key": f"{_DEDUPED}{place.key}" if place.deduped else place.key,
                "partition": partition,
                "body": encode(each.state),
                "format": FORMAT,
                "expires_at": each.due,
            }
            for place, each in staying.items()
        ]
        at_the_end(target, _save, rows)
        for place, row in zip(staying, rows, strict=True):
            if len(row["body"]) > LARGE:
                self._tell_large(place, len(row["body"]))

    def _tell_large(self, place: Place, size: int) -> None:
        """Once a minute. Nothing is cut off: what waits for its turn or its deadline decides, whatever it weighs."""
        now = time.monotonic()
        if now - self._told.get(place, -math.inf) < _AGAIN:
            return
        self._told = {each: at for each, at in self._told.items() if now - at < _AGAIN} | {place: now}
        remedy = "shorten `lateness` or `within`, or give `per` a finer value"
        _log.warning("engine.state_large", automation=place.automation, key=place.key, bytes=size, remedy=remedy)


def _place(row: Row) -> Place:
    deduped = row["key"].startswith(_DEDUPED)
    return Place(row["automation"], row["when_digest"], row["key"].removeprefix(_DEDUPED), deduped)


def _state(body: bytes, place: Place) -> AnyState:
    return deduping.decode(body) if place.deduped else key_state.decode(body)
