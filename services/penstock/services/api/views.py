"""Rows as the JSON that the API shows: times in RFC 3339, JSON columns decoded, secrets as references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import sqlalchemy as sa
from fastapi import Query

from penstock.automations.secrets import reveal
from penstock.events.instants import format_instant
from penstock.services.database import Database

Page: TypeAlias = Annotated[int, Query(ge=1, le=1_000, description="how many at most")]
Row: TypeAlias = Mapping[str, Any]
Shown: TypeAlias = dict[str, Any]

TIMES = frozenset(
    {
        "at",
        "created",
        "updated",
        "started",
        "ended",
        "decided",
        "expires_at",
        "due_at",
        "wake_at",
        "answered",
        "next_at",
    }
)
DECODED = frozenset({"key", "events", "parameters", "limits", "result", "options", "response", "takes", "tags"})
# Of the inside alone.
HIDDEN = frozenset({"nonce", "epoch", "earlier", "lane", "format", "report", "seq", "lease_until", "gate"})


def shown(row: Row) -> Shown:
    """One row for the reader."""
    nonce = row.get("nonce")
    found = {name: _shown(name, value) for name, value in row.items() if name not in HIDDEN}
    return reveal(found, nonce, lambda name: f"{{{{ secrets.{name} }}}}") if nonce else found


async def fetch(database: Database, query: sa.Select[Any]) -> list[Row]:
    """All rows of a query."""
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(query)).mappings()]


def _shown(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in TIMES:
        return format_instant(value) if value else None
    return json.loads(value) if name in DECODED and isinstance(value, str) else value
