"""The engine of the next release, as our rule for formats allows it to be: `python -m tests.support.engine_after`.

Its records and stored values are of format 2 where a reader need not know it, and carry fields that today's readers
have never heard of; its schema (`expand`) has gone on by a revision that they do not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from penstock.events.bus import NOTIFICATIONS, Outgoing
from penstock.services.cli import service
from penstock.services.database import Database
from penstock.services.engine import decisions, effects, firings, relay, stage_one, states
from penstock.services.engine.correlation import AnyState
from penstock.services.engine.match_records import MatchRecord, outgoing

REVISION = "0002_of_a_later_release"
EXPANDED = ("run", "journal", "delivery", "approval", "firing", "fact", "decision", "state", "outbox", "position")
NEW = {"later": {"since": "format 2"}}


async def expand(database: Database) -> None:
    """Migrate as the next release does: a column more in each table, and a revision that today's code lacks."""
    async with database.begin() as connection:
        for table in EXPANDED:
            await connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN later TEXT DEFAULT 'new'"))
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = :new"), {"new": REVISION})


def extended(value: bytes | str) -> bytes:
    """A JSON object with what the next release adds."""
    return json.dumps({**json.loads(value), **NEW}).encode()


def _relayed(row: Mapping[str, Any]) -> Outgoing:
    found = _outgoing(row)
    if not found.topic.startswith(("penstock.runs.", NOTIFICATIONS)):
        return found
    return replace(found, value=json.dumps({**json.loads(found.value), **NEW, "v": 2}).encode())


def _match(record: MatchRecord, partition: int) -> Outgoing:
    found = outgoing(record, partition)
    return replace(found, value=json.dumps({**json.loads(found.value), **NEW, "v": 2}).encode())


def _row(value: Any) -> dict[str, Any]:
    row = _firing_row(value)
    return {**row, "body": extended(row["body"]).decode()}


def _encode(state: AnyState) -> bytes:
    """A state of the next release has a field more."""
    return msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(state)), "new"])


async def _write(self: effects.Effects, connection: Any) -> frozenset[str]:
    for row in (*self.deliveries, *self.approvals):
        row["body"] = extended(row["body"]).decode()
    return await _effects_write(self, connection)


_outgoing, _firing_row = relay._outgoing, decisions.firing_row
_effects_write = effects.Effects.write


def main() -> None:
    """Become it, and run until SIGTERM."""
    for module, name, after in (
        (relay, "_outgoing", _relayed),
        (stage_one, "outgoing", _match),
        (decisions, "firing_row", _row),
        (firings, "firing_row", _row),
        (states, "encode", _encode),
        (effects.Effects, "write", _write),
    ):
        assert hasattr(module, name), name
        setattr(module, name, after)
    service.main(["engine"])


if __name__ == "__main__":
    main()
