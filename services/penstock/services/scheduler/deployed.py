"""Schedules of deployments: each due time makes one run, however many schedulers there are.

A tick is one transaction: the schedule's next due time, the run, and the event. The run's id is derived from
deployment, schedule and due time, so that even a schedule that is set back makes it once. A paused deployment goes on
in time, and tells what it skips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import types
from penstock.events.bus import Outgoing
from penstock.events.ids import derived_id
from penstock.events.instants import SECOND, Instant, format_instant
from penstock.services import hints
from penstock.services.context import Context
from penstock.services.database import Database, clock, unavailable
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.database.tables import deployment_schedule as schedule
from penstock.services.runs import create_runs
from penstock.services.scheduler.due import Passed, Spec, next_due, passed
from penstock.services.targets import Target, all_targets

_AT_ONCE = 100  # schedules claimed in one transaction
_LONGEST_SLEEP = 5.0  # seconds: a hint may be lost, clocks are set
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tick:
    """A due time of a deployment. run: the run's id; None where the deployment is paused."""

    deployment: str
    due: Instant
    at: Instant
    missed: int
    run: str | None


class DeploymentTicks:
    """Fires the schedules of the deployments of one namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Until cancelled; a database that is away is waited for."""
        while True:
            try:
                pause = await self._fire()
            except Exception as error:
                if not unavailable(error):
                    raise
                _log.warning("deployments.waiting_for_database", error=str(error))
                pause = 1.0
            if pause > 0:
                await self._context.hints.wait(hints.DEPLOYMENTS, pause)

    async def _fire(self) -> float:
        """Fire what is due; returns the seconds until the next look."""
        database, namespace = self._context.database, self._context.settings.namespace
        ticks = await fire_due(database, namespace)
        if ticks:
            await self._context.hints.give(hints.OUTBOX, hints.RUNS, hints.PLACES)
        for tick in ticks:
            late = (tick.at - tick.due) // 1_000
            _log.info("deployment.ticked", deployment=tick.deployment, run=tick.run, late_ms=late, missed=tick.missed)
        left = await until_next(database, namespace)
        return _LONGEST_SLEEP if left is None else min(_LONGEST_SLEEP, left / SECOND)


async def fire_due(database: Database, namespace: str) -> list[Tick]:
    """Fire every schedule that is due and that nobody else is firing."""
    async with database.begin() as connection:
        now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
        rows = await _claim(connection, database, namespace, now)
        targets = await all_targets(connection, namespace) if rows else {}
        ticks = []
        for row in rows:
            what = passed(Spec.from_json(row["spec"]), row["next_at"], now)
            upcoming = next_due(Spec.from_json(row["spec"]), what.latest)
            await connection.execute(sa.update(schedule).where(*_is(row)).values(next_at=upcoming, updated=now))
            if (target := targets.get(row["deployment"])) is not None and target.deployment is not None:
                ticks.append(await _tick(connection, row, target, what, now))
        return ticks


async def until_next(database: Database, namespace: str) -> int | None:
    """Microseconds until the next due time, 0 or less where one has passed; None where there is none."""
    earliest = sa.select(sa.func.min(schedule.c.next_at), clock.now()).where(schedule.c.namespace == namespace)
    async with database.read() as connection:
        found, now = (await connection.execute(earliest)).one()
    return None if found is None else int(found) - int(now)


async def _claim(
    connection: AsyncConnection, database: Database, namespace: str, now: Instant
) -> list[Mapping[str, Any]]:
    query = sa.select(schedule).where(schedule.c.namespace == namespace, schedule.c.next_at <= now)
    query = query.order_by(schedule.c.next_at).limit(_AT_ONCE)
    if not database.is_sqlite:  # SQLite has one writer at a time anyway
        query = query.with_for_update(skip_locked=True)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _tick(
    connection: AsyncConnection, row: Mapping[str, Any], target: Target, what: Passed, now: Instant
) -> Tick:
    namespace, name = row["namespace"], row["deployment"]
    run_id = derived_id("deployment-run", namespace, name, row["id"], str(what.latest))
    told = [_missed(row, what, now)] if what.missed else []
    if target.paused:
        told.append(_event(types.SCHEDULE_SKIPPED, row, what, now, {"reason": "the deployment is paused"}))
    else:
        fired = _event_id(row, "fired", what.latest)
        new = target.run(
            run_id,
            json.loads(row["parameters"]),
            namespace=namespace,
            correlationid=fired,
            causationid=fired,
            actor=f"schedule/{name}",
        )
        told += [_event(types.SCHEDULE_FIRED, row, what, now, {"run": run_id}), *await create_runs(connection, [new])]
    publish_later(connection, service_lane(run_id), told)
    return Tick(name, what.latest, now, what.missed, None if target.paused else run_id)


def _missed(row: Mapping[str, Any], what: Passed, now: Instant) -> Outgoing:
    """Due times that passed while no scheduler ran: told, and not made up for."""
    data = {"first": format_instant(row["next_at"]), "before": format_instant(what.latest)}
    counted = {"count": what.missed, "exact": what.exact, "deployment": row["deployment"]}
    return _made(types.SCHEDULE_MISSED, row, data | counted, now, _event_id(row, "missed", row["next_at"]))


def _event(type_: str, row: Mapping[str, Any], what: Passed, now: Instant, more: Mapping[str, Any]) -> Outgoing:
    data = {"due": format_instant(what.latest), "missed": what.missed, "deployment": row["deployment"], **more}
    return _made(type_, row, data, now, _event_id(row, type_.rpartition(".")[2], what.latest))


def _made(type_: str, row: Mapping[str, Any], data: Mapping[str, Any], at: Instant, event_id: str) -> Outgoing:
    subject = f"deployment/{row['deployment']}"  # a rule for the schedule of that name does not mean it
    return system_event(type_, subject=subject, data=data, at=at, namespace=row["namespace"], event_id=event_id)


def _event_id(row: Mapping[str, Any], kind: str, due: Instant) -> str:
    return derived_id("deployment-schedule", kind, row["namespace"], row["deployment"], row["id"], str(due))


def _is(row: Mapping[str, Any]) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(schedule.c[name] == row[name] for name in ("namespace", "deployment", "id"))
