"""Decisions: made once. Each becomes a row, an event, and a firing that begins in the same transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import HOP_BUDGET
from penstock.automations.facts import Started
from penstock.automations.firing import Firing, start
from penstock.events.bus import Outgoing
from penstock.events.ids import derived_id
from penstock.services.database import clock
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import inserting
from penstock.services.database.records import system_event
from penstock.services.database.tables import decision, firing
from penstock.services.engine import dispatch
from penstock.services.engine.compiled import Compiled
from penstock.services.engine.dispatch import Made
from penstock.services.engine.effects import Effects, FlowPools, flows_of
from penstock.services.engine.ownership import Lane
from penstock.services.engine.suppressions import note
from penstock.services.targets import Target
from penstock.triggers.evidence import Evidence

_FORMAT = 1


_DECISION = (
    *("id", "namespace", "automation", "when_digest", "kind", "key", "at", "events", "reason", "revision"),
    *("correlationid", "causationid", "traceparent"),
)
_store = inserting(decision, *_DECISION, created=clock.now(), ignore=True, returning=("id",))
_store_new = inserting(decision, *_DECISION, created=clock.now())
_keep = inserting(
    firing,
    *("id", "lane", "key", "namespace", "automation", "revision", "status", "body", "wake_at", "format"),
    created=clock.now(),
    updated=clock.now(),
    ignore=True,
)


class Decisions:
    """Writes decisions within the transaction of the batch that made them."""

    def __init__(self, namespace: str, pools: FlowPools, skew: clock.Skew) -> None:
        self._namespace, self._pools, self._skew = namespace, pools, skew

    async def write(
        self, connection: AsyncConnection, lane: Lane, rules: Compiled, made: Sequence[Made]
    ) -> frozenset[str]:
        """Store those that are new, and begin their firings.  Returns the hints to give after the commit."""
        note(connection, [each.decision for each in made if each.decision.kind == "suppressed"])
        begun = {id_: (each, _firing(id_, each, rules.revision)) for id_, each in _chosen(made).items()}
        rows = [_decision_row(each, before) for each, before in begun.values()]
        new = {row["id"] for row in await _store.many(connection, rows)}
        if not new:
            return frozenset()
        fresh = [begun[id_] for id_ in begun if id_ in new]
        passed = await dispatch.through_storms(connection, fresh)
        return await self._begin(connection, lane, passed)

    def leave(self, writes: Writes, lane: Lane, rules: Compiled, made: Sequence[Made]) -> frozenset[str] | None:
        """As `write`, where nothing has to be read for it: everything is left in `writes`.

        The transaction fails as a whole where one of them is not new. None where something has to be read.
        """
        flows = self._pools.known
        if any(_looks_back(each) or not flows_of(each.automation) <= flows.keys() for each in made):
            return None
        begun = [(each, _firing(id_, each, rules.revision)) for id_, each in _chosen(made).items()]
        effects, firings = self._drive(lane, flows, begun)
        if effects.loops:
            return None
        at_the_end(writes, _store_new, [_decision_row(each, before) for each, before in begun])
        at_the_end(writes, _keep, [{"lane": lane.name, "key": None, **firing_row(each)} for each in firings])
        return effects.leave(writes, self._skew.now())

    def _drive(
        self, lane: Lane, flows: Mapping[str, Target], begun: Sequence[tuple[Made, Firing]]
    ) -> tuple[Effects, list[Firing]]:
        """What those that take no turns come to."""
        effects = Effects(self._namespace, lane.name, flows)
        effects.records += [told for each, before in begun for told in _told(each, before)]
        now = self._skew.now()
        live = [(each, before) for each, before in begun if not each.automation.shadow]
        return effects, [effects.drive(before, Started(), now, each.automation) for each, before in live]

    async def _begin(
        self, connection: AsyncConnection, lane: Lane, begun: Sequence[tuple[Made, Firing]]
    ) -> frozenset[str]:
        needed = {name for each, _ in begun for name in flows_of(each.automation)}
        flows = await self._pools.get(connection, needed)
        hints = await self._turn_by_turn(connection, lane, flows, [each for each in begun if each[0].takes_turns])
        effects, firings = self._drive(lane, flows, [each for each in begun if not each[0].takes_turns])
        at_the_end(connection, _keep, [{"lane": lane.name, "key": None, **firing_row(each)} for each in firings])
        return hints | await effects.write(connection)

    async def _turn_by_turn(
        self, connection: AsyncConnection, lane: Lane, flows: Mapping[str, Target], begun: Sequence[tuple[Made, Firing]]
    ) -> frozenset[str]:
        """Where `mode` looks at the firings before: each is written before the next one is looked at."""
        hints: frozenset[str] = frozenset()
        for each, before in begun:
            act = await dispatch.admit(connection, each)
            if act == "drop":
                continue
            effects = Effects(self._namespace, lane.name, flows)
            effects.records += _told(each, before)
            if not each.automation.shadow:
                after = dispatch.queued(before)
                if act == "start":
                    after = effects.drive(before, Started(), self._skew.now(), each.automation)
                await _keep.fetch(connection, lane=lane.name, key=each.decision.key, **firing_row(after))
            hints |= await effects.write(connection)
        return hints


def _chosen(made: Sequence[Made]) -> dict[str, Made]:
    """By id, those that are no suppressions; the first of one cause counts."""
    chosen: dict[str, Made] = {}
    for each in made:
        if each.decision.kind != "suppressed":
            chosen.setdefault(each.id, each)
    return chosen


def _looks_back(made: Made) -> bool:
    """Whether it depends on what the database has: its turn, a storm, a counter of what was suppressed."""
    return made.decision.kind == "suppressed" or made.takes_turns or made.automation.rule.stages.storm is not None


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
        events=[event_of(each) for each in made.decision.evidence],
        key=made.decision.key_value,
        at=made.decision.at,
        nonce=secrets.token_hex(8),
        kind=made.decision.kind,
        value=made.decision.value,
        previous=made.decision.from_,
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
        "kind": made.decision.kind,
        "key": made.decision.key,
        "at": made.decision.at,
        "events": json.dumps(made.decision.events),
        "reason": made.decision.reason,
        "revision": begun.revision,
        "correlationid": begun.correlationid,
        "causationid": begun.causationid,
        "traceparent": begun.traceparent,
    }


def _told(made: Made, begun: Firing) -> list[Outgoing]:
    """`penstock.automation.fired` (or resolved); nothing past the hop budget: rules over such events may loop, too."""
    if begun.hops >= HOP_BUDGET:
        return []
    data = {
        "automation": begun.automation,
        "decision": begun.id,
        "key": begun.trigger["key"],
        "events": made.decision.events,
        "shadow": made.automation.shadow,
    }
    event = system_event(
        f"penstock.automation.{made.decision.kind}",
        subject=begun.automation,
        data=data,
        at=made.decision.at,
        namespace=begun.namespace,
        event_id=derived_id("event", begun.id),
        correlationid=begun.correlationid,
        causationid=begun.causationid,
        traceparent=begun.traceparent,
        hops=begun.hops + 1,
    )
    return [event]
