"""Decisions: made once. Each becomes a row, an event, and a firing that begins in the same transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import Automation
from penstock.automations.decision import decision_id
from penstock.automations.facts import Started
from penstock.automations.firing import Firing, start
from penstock.events.bus import Outgoing
from penstock.events.ids import derived_id
from penstock.services.database import clock
from penstock.services.database.prepared import at_the_end, inserting
from penstock.services.database.records import system_event
from penstock.services.database.tables import decision, firing
from penstock.services.engine.compiled import Compiled
from penstock.services.engine.effects import Effects, FlowPools, flows_of, wall_clock
from penstock.services.engine.ownership import Lane
from penstock.triggers.evidence import Decided, Evidence

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Made:
    """A decision that a trigger came to: whose, for which key (canonical JSON), on what evidence."""

    automation: Automation
    key: str
    decided: Decided

    @property
    def id(self) -> str:
        """Derived from its cause."""
        rule, decided = self.automation, self.decided
        causes = [each.key for each in decided.evidence]
        return decision_id(rule.namespace, rule.name, rule.when_digest, decided.kind, self.key, decided.due, causes)


_store = inserting(
    decision,
    *("id", "namespace", "automation", "when_digest", "kind", "key", "at", "events", "reason", "revision"),
    *("correlationid", "causationid", "traceparent"),
    created=clock.now(),
    ignore=True,
    returning=("id",),
)
_keep = inserting(
    firing,
    *("id", "lane", "namespace", "automation", "revision", "status", "body", "wake_at", "format"),
    created=clock.now(),
    updated=clock.now(),
    ignore=True,
)


class Decisions:
    """Writes decisions within the transaction of the batch that made them."""

    def __init__(self, namespace: str, pools: FlowPools) -> None:
        self._namespace, self._pools = namespace, pools

    async def write(
        self, connection: AsyncConnection, lane: Lane, rules: Compiled, made: Sequence[Made]
    ) -> frozenset[str]:
        """Store those that are new, and begin their firings.  Returns the hints to give after the commit."""
        chosen = {each.id: each for each in made if each.automation.enabled}
        begun = {id_: (each, _firing(id_, each, rules.revision)) for id_, each in chosen.items()}
        rows = [_decision_row(each, before) for each, before in begun.values()]
        new = {row["id"] for row in await _store.many(connection, rows)}
        if not new:
            return frozenset()
        return await self._begin(connection, lane, [begun[id_] for id_ in begun if id_ in new])

    async def _begin(
        self, connection: AsyncConnection, lane: Lane, begun: Sequence[tuple[Made, Firing]]
    ) -> frozenset[str]:
        needed = {name for each, _ in begun for name in flows_of(each.automation)}
        flows = await self._pools.get(connection, needed)
        effects = Effects(self._namespace, lane.name, flows)
        effects.records += [_told(each, before) for each, before in begun]
        now = wall_clock()
        firings = [
            effects.drive(before, Started(), now, each.automation)
            for each, before in begun
            if not each.automation.shadow
        ]
        at_the_end(connection, _keep, [{"lane": lane.name, **firing_row(each)} for each in firings])
        return await effects.write(connection)


def firing_row(value: Firing) -> dict[str, Any]:
    """The columns that follow from a firing."""
    timers = [at for at in (value.retry_at, value.deadline) if at is not None]
    return {
        "id": value.id,
        "namespace": value.namespace,
        "automation": value.automation,
        "revision": value.revision,
        "status": value.status,
        "body": value.to_json().decode(),
        "wake_at": min(timers, default=None) if not value.ended else None,
        "format": value.v,
    }


def _firing(id_: str, made: Made, revision: int) -> Firing:
    return start(
        made.automation,
        decision_id=id_,
        revision=revision,
        events=[event_of(each) for each in made.decided.evidence],
        key=msgspec.json.decode(made.key),
        at=made.decided.at,
        nonce=secrets.token_hex(8),
        kind=made.decided.kind,
    )


def event_of(evidence: Evidence) -> dict[str, Any]:
    """The event as templates see it; where its body was too large to keep, its identity."""
    if evidence.body:
        return dict(msgspec.json.decode(evidence.body))
    return {"source": evidence.source, "id": evidence.id}


def _decision_row(made: Made, begun: Firing) -> dict[str, Any]:
    return {
        "id": begun.id,
        "namespace": begun.namespace,
        "automation": begun.automation,
        "when_digest": made.automation.when_digest,
        "kind": made.decided.kind,
        "key": made.key,
        "at": made.decided.at,
        "events": json.dumps([each.id for each in made.decided.evidence]),
        "reason": made.decided.reason,
        "revision": begun.revision,
        "correlationid": begun.correlationid,
        "causationid": begun.causationid,
        "traceparent": begun.traceparent,
    }


def _told(made: Made, begun: Firing) -> Outgoing:
    """`penstock.automation.fired` (or resolved)."""
    data = {
        "automation": begun.automation,
        "decision": begun.id,
        "key": begun.trigger["key"],
        "events": [each.id for each in made.decided.evidence],
        "shadow": made.automation.shadow,
    }
    return system_event(
        f"penstock.automation.{made.decided.kind}",
        subject=begun.automation,
        data=data,
        at=made.decided.at,
        namespace=begun.namespace,
        event_id=derived_id("event", begun.id),
        correlationid=begun.correlationid,
        causationid=begun.causationid,
        traceparent=begun.traceparent,
        hops=min(begun.hops + 1, 1_000),
    )
