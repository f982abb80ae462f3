"""The outcome of a delivery, in one transaction: the row, the fact for its firing, the events, the dead letter.

A delivery that belongs to a firing is not dead-lettered beside it: one failure, one dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.facts import AnyFact, StepFailed, StepSucceeded
from penstock.events.bus import NOTIFICATIONS, Outgoing
from penstock.events.ids import derived_id
from penstock.services.database.records import publish_later, service_lane, system_event, tell_firing
from penstock.services.dead_letters import Origin, dead_letter
from penstock.services.deliveries import Delivery, update


async def record_success(connection: AsyncConnection, delivery: Delivery, response: Mapping[str, Any]) -> bool:
    """It was delivered. Returns False, having written nothing, where another claim has taken over since."""
    stored = msgspec.json.encode(response).decode()
    values = {"status": "delivered", "response": stored, "error": None, "attempts": delivery.attempts + 1}
    if not await update(connection, delivery, owner=None, lease_until=0, **values):
        return False
    await _tell(connection, delivery, StepSucceeded(delivery.step or "", dict(response)))
    publish_later(connection, service_lane(delivery.id), [_event(delivery, "succeeded", {})])
    return True


async def record_failure(connection: AsyncConnection, delivery: Delivery, error: str) -> bool:
    """It will not be delivered. error: free of secrets. Returns as `record_success`."""
    values = {"status": "failed", "error": error, "attempts": delivery.attempts + 1}
    if not await update(connection, delivery, owner=None, lease_until=0, **values):
        return False
    await _tell(connection, delivery, StepFailed(delivery.step or "", error))
    records = [_event(delivery, "failed", {"error": error})]
    if delivery.firing_id is None:  # else its firing takes `on_error`, or is dead-lettered itself
        letter = _dead_letter(delivery, error)
        named = {"reason": error, "dead_letter": msgspec.json.decode(letter.value)["id"]}
        records += [letter, _event(delivery, "dead_lettered", named)]
    publish_later(connection, service_lane(delivery.id), records)
    return True


def _dead_letter(delivery: Delivery, error: str) -> Outgoing:
    """The message itself stays in its row, with its secrets as placeholders."""
    body = {"v": 1, "delivery": delivery.id, "namespace": delivery.namespace, "channel": delivery.channel}
    return dead_letter(
        f"delivery {delivery.id} to channel {delivery.channel!r} failed: {error}",
        Origin(NOTIFICATIONS, automation=delivery.automation),
        value=msgspec.json.encode(body),
        namespace=delivery.namespace,
    )


async def _tell(connection: AsyncConnection, delivery: Delivery, fact: AnyFact) -> None:
    if delivery.firing_id is not None and delivery.lane is not None:
        await tell_firing(
            connection,
            namespace=delivery.namespace,
            firing_id=delivery.firing_id,
            lane=delivery.lane,
            fact=msgspec.json.encode(fact),
        )


def _event(delivery: Delivery, what: str, more: Mapping[str, Any]) -> Outgoing:
    data = {
        "action": "notify",
        "delivery": delivery.id,
        "channel": delivery.channel,
        "automation": delivery.automation,
        "firing": delivery.firing_id,
        "step": delivery.step,
        "attempts": delivery.attempts + 1,
    }
    return system_event(
        f"penstock.action.{what}",
        subject=delivery.automation or delivery.channel,
        data={**data, **more},
        at=time.time_ns() // 1_000,
        namespace=delivery.namespace,
        event_id=derived_id("action", what, delivery.id),
        correlationid=delivery.correlationid,
        causationid=delivery.causationid,
        traceparent=delivery.traceparent,
        hops=delivery.hops,
    )
