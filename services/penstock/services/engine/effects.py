"""What firings ask for, as rows and records: gathered over a batch, written with few statements in its transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import HOP_BUDGET, Automation, RunStep
from penstock.automations.approval import Approval
from penstock.automations.facts import (
    AnyCommand,
    AnyFact,
    DeadLetter,
    EmitEvent,
    Notify,
    RequestApproval,
    StartRun,
    StepFailed,
    StepSucceeded,
)
from penstock.automations.firing import Firing, advance
from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.event import from_mapping
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services import hints as hint
from penstock.services.database import Database, clock, unavailable
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import inserting
from penstock.services.database.records import publish_later, system_event
from penstock.services.database.tables import approval, delivery, notice
from penstock.services.dead_letters import Origin, dead_letter
from penstock.services.runs import NewRun, create_new, create_runs
from penstock.services.targets import Target, all_targets

_log = structlog.get_logger()
_FLOWS_FRESH = 2.0  # seconds


def wall_clock() -> Instant:
    """Now, by this machine."""
    return time.time_ns() // 1_000


_DELIVERY = (
    *("id", "namespace", "firing_id", "lane", "step", "automation", "channel", "status", "body", "nonce"),
    *("correlationid", "causationid", "traceparent", "hops"),
)
_deliver = inserting(delivery, *_DELIVERY, created=clock.now(), due_at=clock.now(), ignore=True)
_ask = inserting(
    approval,
    *("id", "namespace", "firing_id", "lane", "step", "automation", "status", "ask", "body", "expires_at"),
    created=clock.now(),
    ignore=True,
)
_notice = inserting(notice, "namespace", "what", "object", at=clock.now(), ignore=True, returning=("object",))


@dataclass(slots=True)
class Effects:
    """Rows and records to write; `flows` is what can be run, by name."""

    namespace: str
    lane: str
    flows: Mapping[str, Target]
    runs: list[NewRun] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    records: list[Outgoing] = field(default_factory=list)
    loops: dict[str, Outgoing] = field(default_factory=dict)  # notices, each to be told once

    def drive(self, firing: Firing, fact: AnyFact, now: Instant, automation: Automation) -> Firing:
        """Advance by a fact, and by every fact that follows at once; what is asked for is gathered here."""
        facts = [fact]
        while facts:
            firing, commands = advance(firing, facts.pop(0), now, automation)
            for command in commands:
                answer = self._take(firing, command, now)
                facts += [answer] if answer is not None else []
        return firing

    async def write(self, connection: AsyncConnection) -> frozenset[str]:
        """Within the caller's transaction; whatever is there already is left as it is.

        Returns the hints to give after the commit: who has something to do now.
        """
        told = await create_runs(connection, self.runs)
        await _deliver.many(connection, self.deliveries)
        await _ask.many(connection, self.approvals)
        publish_later(connection, self.lane, [*told, *self.records, *await self._new_loops(connection)])
        return self._hints()

    def leave(self, writes: Writes, now: Instant) -> frozenset[str]:
        """As `write`, at once with everything else; not where there are `loops`, which have to be looked up."""
        told = create_new(writes, self.runs, now)
        at_the_end(writes, _deliver, self.deliveries)
        at_the_end(writes, _ask, self.approvals)
        publish_later(writes, self.lane, [*told, *self.records])
        return self._hints()

    def _hints(self) -> frozenset[str]:
        emits = any(record.topic == bus.EVENTS for record in self.records)
        waits = any(each.gate == 0 for each in self.runs)
        hints = (
            *((self.runs, hint.RUNS), (waits, hint.PLACES)),
            *((self.deliveries, hint.DELIVERIES), (emits, hint.EVENTS)),
        )
        return frozenset(name for there_is, name in hints if there_is)

    async def _new_loops(self, connection: AsyncConnection) -> list[Outgoing]:
        """The notices that nobody has given yet."""
        rows = [{"namespace": self.namespace, "what": "looped", "object": name} for name in sorted(self.loops)]
        return [self.loops[row["object"]] for row in await _notice.many(connection, rows)] if rows else []

    def _take(self, firing: Firing, command: AnyCommand, now: Instant) -> AnyFact | None:
        """Gather one command.  Returns the fact that follows at once, if any."""
        match command:
            case StartRun():
                return self._start_run(firing, command)
            case Notify():
                self._notify(firing, command)
            case RequestApproval():
                self._request_approval(firing, command, now)
            case EmitEvent():
                event = from_mapping(command.event)
                self.records.append(Outgoing(topic=bus.EVENTS, key=event.ordering_key.encode(), value=event.to_json()))
            case DeadLetter():
                self._dead_letter(firing, command, now)
        return None

    def _start_run(self, firing: Firing, command: StartRun) -> AnyFact:
        if command.flow not in self.flows:
            error = f"there is no deployment or flow {command.flow!r}; deploy it, or start a worker that has it"
            return StepFailed(command.step, error, retryable=True, attempt=command.attempt)
        self.runs.append(
            self.flows[command.flow].run(
                command.run_id,
                command.parameters,
                pool=command.pool,
                namespace=firing.namespace,
                queue=command.queue,
                priority=command.priority,
                nonce=command.nonce,
                firing_id=firing.id,
                lane=self.lane,
                step=command.step,
                fairness_key=msgspec.json.encode([firing.automation, firing.trigger.get("key")]).decode(),
                report=int(command.waits),
                correlationid=command.correlationid,
                causationid=command.causationid,
                traceparent=command.traceparent,
                hops=command.hops,
                actor=f"automation/{firing.automation}",
            )
        )
        return StepSucceeded(command.step, {"run_id": command.run_id})

    def _notify(self, firing: Firing, command: Notify) -> None:
        retry = {name: getattr(command, name) for name in ("attempts", "delay", "backoff", "max_delay")}
        body = {"text": command.text, "title": command.title, "retry": retry}
        self.deliveries.append(
            {
                "id": command.notification_id,
                "namespace": firing.namespace,
                "firing_id": firing.id,
                "lane": self.lane,
                "step": command.step,
                "automation": firing.automation,
                "channel": command.channel,
                "status": "pending",
                "body": msgspec.json.encode(body).decode(),
                "nonce": command.nonce,
                "correlationid": firing.correlationid,
                "causationid": firing.causationid,
                "traceparent": firing.traceparent,
                "hops": firing.hops + 1,
            }
        )
        value = msgspec.json.encode({"v": 1, "delivery": command.notification_id, "namespace": firing.namespace})
        self.records.append(Outgoing(topic=bus.NOTIFICATIONS, key=command.notification_id.encode(), value=value))

    def _request_approval(self, firing: Firing, command: RequestApproval, now: Instant) -> None:
        asked = Approval(
            command.approval_id,
            command.ask,
            command.approvers,
            now,
            command.deadline,
            command.needs,
            command.four_eyes,
            command.on_timeout,
            command.shown,
            starter_of(firing),
            starters=starters_of(firing),
        )
        self.approvals.append(
            {
                "id": asked.id,
                "namespace": firing.namespace,
                "firing_id": firing.id,
                "lane": self.lane,
                "step": command.step,
                "automation": firing.automation,
                "status": "pending",
                "ask": asked.ask,
                "body": asked.to_json().decode(),
                "expires_at": asked.deadline,
            }
        )
        data = {"automation": firing.automation, "ask": asked.ask, "approvers": list(asked.approvers)}
        self.records.append(self._told("penstock.approval.requested", firing, asked.id, now, data))

    def _dead_letter(self, firing: Firing, command: DeadLetter, now: Instant) -> None:
        _log.warning("firing.dead_lettered", automation=firing.automation, firing=firing.id, reason=command.reason)
        topic, _, partition = self.lane.rpartition("/")
        origin = Origin(topic, int(partition), automation=firing.automation, firing=firing.id)
        self.records.append(
            dead_letter(command.reason, origin, value=firing.to_json(), namespace=firing.namespace, at=now)
        )
        data = {"automation": firing.automation, "firing": firing.id, "step": command.step, "reason": command.reason}
        if firing.hops >= HOP_BUDGET:
            self._tell_loop(firing, now, data)
            return
        self.records.append(self._told("penstock.action.dead_lettered", firing, firing.id, now, data))

    def _tell_loop(self, firing: Firing, now: Instant, data: dict[str, Any]) -> None:
        """`penstock.automation.looped`, once for each rule of a revision.

        It begins a chain of its own: a rule that tells somebody about it may do so.
        """
        name = f"{firing.automation}@{firing.revision}"
        self.loops.setdefault(
            name,
            system_event(
                "penstock.automation.looped",
                subject=firing.automation,
                data=data,
                at=now,
                namespace=firing.namespace,
                event_id=derived_id("looped", firing.namespace, name),
                correlationid=firing.correlationid,
                causationid=firing.causationid,
            ),
        )

    def _told(self, type_: str, firing: Firing, subject: str, now: Instant, data: dict[str, Any]) -> Outgoing:
        return system_event(
            type_,
            subject=subject,
            data=data,
            at=now,
            namespace=firing.namespace,
            event_id=derived_id(type_, firing.id, subject),
            correlationid=firing.correlationid,
            causationid=firing.causationid,
            traceparent=firing.traceparent,
            hops=firing.hops + 1,
        )


def starters_of(firing: Firing) -> tuple[str, ...]:
    """Every person whose event took part: none of them may decide under four-eyes."""
    actors = (str(event.get("actor") or "") for event in firing.events)
    return tuple(sorted({actor for actor in actors if actor.startswith("user/")}))


def starter_of(firing: Firing) -> str | None:
    """The person whose event set the firing going, where the door at which it came in has noted one."""
    actor = str((firing.events[-1] if firing.events else {}).get("actor") or "")
    return actor if actor.startswith("user/") else None


class FlowPools:
    """Deployments and registered flows, by name; `run` keeps it fresh, and what is missing is asked for."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._known: dict[str, Target] = {}

    async def run(self, database: Database) -> None:
        """Look every so often, beside the transactions, until cancelled."""
        while True:
            await asyncio.sleep(_FLOWS_FRESH)
            try:
                async with database.read() as connection:
                    await self._look(connection)
            except Exception as error:
                if not unavailable(error):
                    raise

    @property
    def known(self) -> Mapping[str, Target]:
        """As far as it has been looked up."""
        return self._known

    async def get(self, connection: AsyncConnection, needed: Iterable[str]) -> dict[str, Target]:
        """As far as there is anything; those of `needed` that are missing are neither deployed nor registered."""
        if not all(name in self._known for name in needed):
            await self._look(connection)
        return self._known

    async def _look(self, connection: AsyncConnection) -> None:
        self._known = await all_targets(connection, self._namespace)


def flows_of(automation: Automation) -> set[str]:
    """The deployments and flows that the steps of a rule may launch."""
    steps = (*automation.then, *automation.on_resolve, *automation.on_error)
    return {step.flow for step in steps if isinstance(step, RunStep)}
