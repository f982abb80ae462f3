"""Rows of approvals as the engine would write them, with their firings."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from penstock.automations.approval import Approval
from penstock.automations.firing import Firing
from penstock.events.instants import SECOND
from penstock.services.database import Database, clock, tables

LANE = "penstock.matches/3"


async def ask(database: Database, id_: str = "a1", *, seconds: int = 600, **more: Any) -> Approval:
    """A pending approval, and the firing that waits for it, in the namespace default."""
    namespace, automation = more.pop("namespace", "default"), more.pop("automation", "cold-chain-breach")
    event = {
        "specversion": "1.0", "id": "e1", "source": "/trucks", "type": "sensor.temperature", "subject": "truck/7",
        "time": "2026-03-01T10:00:00Z", "data": {"celsius": 9.5, "door": "open"},
    }  # fmt: skip
    firing = Firing(f"f-{id_}", namespace, automation, 1, (event,), {}, "nonce", "root", "e1", hops=2)
    async with database.begin() as connection:
        now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
        values = {"ask": "Reroute truck/7?", "approvers": ("user/ann",), "shown": "digest"} | more
        approval = Approval(id=id_, requested_at=now, deadline=now + seconds * SECOND, **values)
        common = {"namespace": namespace, "automation": automation, "lane": LANE, "created": now}
        await connection.execute(
            sa.insert(tables.firing).values(
                id=firing.id, status="waiting", body=firing.to_json().decode(), updated=now, **common
            )
        )
        await connection.execute(
            sa.insert(tables.approval).values(
                id=id_, firing_id=firing.id, step="0", status="pending", ask=approval.ask,
                body=approval.to_json().decode(), expires_at=approval.deadline, **common,
            )
        )  # fmt: skip
    return approval
