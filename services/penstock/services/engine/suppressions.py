"""What the stages held back: counted by automation, key, stage and minute, and told once the minute is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.bus import Outgoing
from penstock.events.ids import derived_id
from penstock.events.instants import SECOND, Instant, format_instant
from penstock.services.context import Context
from penstock.services.database.late import at_the_end
from penstock.services.database.prepared import Prepared
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.database.tables import suppression
from penstock.triggers.decisions import Decision

MINUTE = 60 * SECOND
_SOME = 200  # rows told in one transaction
_KEY = ("namespace", "automation", "key", "stage", "minute")


def _counting(insert: type[postgresql.Insert] | type[sqlite.Insert]) -> postgresql.Insert | sqlite.Insert:
    names = (*_KEY, "count", "first_id", "last_id", "reason")
    statement = insert(suppression).values({name: sa.bindparam(name, type_=suppression.c[name].type) for name in names})
    added: dict[str, sa.ColumnElement[Any]] = {name: statement.excluded[name] for name in ("last_id", "reason")}
    added["count"] = suppression.c.count + statement.excluded["count"]
    return statement.on_conflict_do_update(index_elements=list(_KEY), set_=added)


_count = Prepared(_counting(postgresql.Insert), _counting(sqlite.Insert))


def note(connection: AsyncConnection, decisions: Iterable[Decision]) -> None:
    """Count them, with the transaction's end."""
    rows: dict[tuple[str, ...], dict[str, str | int]] = {}
    for each in decisions:
        stage, minute = each.reason.partition(":")[0], each.at - each.at % MINUTE
        place = (each.namespace, each.automation, each.key, stage, str(minute))
        new: dict[str, str | int] = dict(zip(_KEY, (*place[:4], minute), strict=True))
        row = rows.setdefault(place, new | {"count": 0, "first_id": each.id})
        row |= {"count": int(row["count"]) + 1, "last_id": each.id, "reason": each.reason}
    at_the_end(connection, _count, list(rows.values()))


async def tell_suppressed(context: Context, now: Instant) -> int:
    """`penstock.automation.suppressed` for each row whose minute is over.  Returns how many were told.

    now: by this machine's clock. The rows' minutes are the stream's: while a backlog is read, a minute may be told and
    then grow, which its row shows.
    """
    over = (suppression.c.told == 0) & (suppression.c.minute < now - 2 * MINUTE)
    keys = [suppression.c[name] for name in _KEY]
    some = sa.select(*keys).where(over).limit(_SOME)
    statement = sa.update(suppression).where(sa.tuple_(*keys).in_(some)).values(told=1).returning(suppression)
    async with context.database.begin() as connection:
        rows = (await connection.execute(statement)).mappings().all()
        for row in rows:
            publish_later(connection, service_lane(row["automation"]), [_event(row)])
    return len(rows)


def _event(row: sa.RowMapping) -> Outgoing:
    data = {name: row[name] for name in ("automation", "stage", "count", "first_id", "last_id", "reason")}
    minute = {"key": msgspec.json.decode(row["key"]), "minute": format_instant(row["minute"])}
    return system_event(
        "penstock.automation.suppressed",
        subject=row["automation"],
        data=data | minute,
        at=row["minute"] + MINUTE,
        namespace=row["namespace"],
        event_id=derived_id("suppressed", *(str(row[name]) for name in _KEY)),
    )
