"""Deployments in the database: made and changed by `deploy`, paused, listed.

A deployment is known by its name. What it was deployed with is kept beside what holds now: a person may pause it, and
deploying the same again leaves that as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.deployments import (
    DeploymentModel,
    DeploymentScheduleModel,
    parameter_problems,
    problems_of,
)
from penstock.events.errors import PenstockError
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services.database import Database, clock
from penstock.services.database.records import write_audit
from penstock.services.database.tables import COUNTS, deployment, deployment_schedule, flow, run
from penstock.services.scheduler.due import Spec, next_due

FORMAT = 1
Origin = Literal["file", "code"]  # penstock.yaml, or a program: `--prune` removes what came from a file alone
_LOCK = 0x6465706C  # two processes must not both find that a deployment is new


class DeploymentError(PenstockError):
    """Deployments are refused; nothing was changed. `problems` are all that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class DeploymentNotFoundError(PenstockError, LookupError):
    """There is no deployment of this name."""


@dataclass(frozen=True, slots=True)
class FlowOffer:
    """A flow as whoever deploys it has loaded it.

    name, module: as workers register it.  parameters: JSON Schema.  options: as in the table `flow`.
    version: the git commit of its folder.
    """

    name: str
    module: str
    parameters: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A deployment to be made."""

    model: DeploymentModel
    flow: FlowOffer


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one deployment. parts: what differs, of one that was updated."""

    name: str
    what: Literal["created", "updated", "unchanged", "removed"]
    parts: tuple[str, ...] = ()


async def deploy(
    database: Database,
    namespace: str,
    offers: Sequence[Offer],
    *,
    actor: str,
    origin: Origin = "file",
    prune: bool = False,
) -> list[Change]:
    """Make these deployments, all of them or none.  prune: remove those from files that are not among them.

    Returns what became of each.  Raises DeploymentError.
    """
    problems = [problem for offer in offers for problem in _problems(offer)]
    problems += [f"{what} ({remedy})" for _, what, remedy in problems_of(offer.model for offer in offers)]
    if problems:
        raise DeploymentError(problems)
    async with database.begin() as connection:
        if not database.is_sqlite:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        known = {row["name"]: row for row in await _rows(connection, namespace)}
        now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
        changes = []
        for offer in offers:
            await _register(connection, database, namespace, offer)
            changes.append(await _put(connection, namespace, offer, known.get(offer.model.name), actor, origin, now))
        if prune:
            kept = {offer.model.name for offer in offers}
            gone = sorted(name for name, row in known.items() if row["origin"] == "file" and name not in kept)
            changes += [await _remove(connection, namespace, name, actor) for name in gone]
        return changes


async def remove(database: Database, namespace: str, name: str, actor: str) -> Change:
    """Remove one; its runs stay, those that wait for a place begin.  Raises DeploymentNotFoundError."""
    async with database.begin() as connection:
        if not await _rows(connection, namespace, name):
            raise _missing(name)
        return await _remove(connection, namespace, name, actor)


async def set_paused(database: Database, namespace: str, name: str, actor: str, *, paused: bool) -> bool:
    """Have its schedules start no runs, or start them again.  Returns whether that is new.

    Raises DeploymentNotFoundError.
    """
    async with database.begin() as connection:
        changing = (*_is(namespace, name), deployment.c.paused != int(paused))
        statement = sa.update(deployment).where(*changing).values(paused=int(paused), updated=clock.now())
        changed = bool((await connection.execute(statement)).rowcount)
        if changed:
            await _audit(connection, namespace, name, actor, "paused" if paused else "unpaused")
        elif not await _rows(connection, namespace, name):
            raise _missing(name)
    return changed


async def listed(database: Database, namespace: str, name: str | None = None) -> list[dict[str, Any]]:
    """All deployments with their schedules, and how many of their runs count and wait; or the one of that name."""
    async with database.read() as connection:
        found = {row["name"]: row for row in await _rows(connection, namespace, name)}
        places = sa.select(run.c.deployment, run.c.gate, sa.func.count()).where(run.c.namespace == namespace, COUNTS)
        counted: dict[tuple[str, int], int] = {
            (of, gate): count
            for of, gate, count in await connection.execute(places.group_by(run.c.deployment, run.c.gate))
        }
        for row in found.values():
            row["schedules"] = []
            if row["concurrency"] is not None:
                row |= {"holding": counted.get((row["name"], 1), 0), "waiting": counted.get((row["name"], 0), 0)}
        of_them = deployment_schedule.c.namespace == namespace
        query = sa.select(deployment_schedule).where(of_them).order_by(deployment_schedule.c.next_at)
        for each in (await connection.execute(query)).mappings():
            if each["deployment"] in found:
                found[each["deployment"]]["schedules"].append(dict(each))
    return list(found.values())


def _problems(offer: Offer) -> Iterable[str]:
    """What does not fit the flow. Without schedules a parameter may be missing: whoever runs it says it."""
    model, schema = offer.model, offer.flow.parameters
    told = [model.parameters, *({**model.parameters, **each.parameters} for each in model.schedules)]
    for at, given in enumerate(told):
        for problem in parameter_problems(schema, given, complete=at > 0):
            yield f"deployment `{model.name}`{f', schedule {at}' if at else ''}: flow `{model.flow}`: {problem}"


async def _register(connection: AsyncConnection, database: Database, namespace: str, offer: Offer) -> None:
    """The flow, so that rules know it before a worker comes; where one is there already, its pool stays."""
    new = {"module": offer.flow.module, "parameters": json.dumps(offer.flow.parameters), "version": offer.flow.version}
    new |= {"options": json.dumps(offer.flow.options)}
    insert = database.insert(flow).values(namespace=namespace, name=offer.flow.name, pool=offer.model.pool, **new)
    insert = insert.values(updated=clock.now())
    await connection.execute(insert.on_conflict_do_update(index_elements=["namespace", "name"], set_=new))


async def _put(
    connection: AsyncConnection,
    namespace: str,
    offer: Offer,
    old: Mapping[str, Any] | None,
    actor: str,
    origin: Origin,
    now: Instant,
) -> Change:
    """One deployment as its definition says."""
    model, name = offer.model, offer.model.name
    definition = model.model_dump(mode="json")
    values = _values(offer, definition) | {"origin": origin, "actor": actor, "updated": now, "format": FORMAT}
    before = json.loads(old["definition"]) if old is not None else {}
    if old is not None and old["digest"] == values["digest"] and old["origin"] == origin:
        return Change(name, "unchanged")
    if old is None or before.get("paused") != definition["paused"]:
        values["paused"] = int(model.paused)
    if old is None:
        new = {"namespace": namespace, "name": name, "created": now}
        await connection.execute(sa.insert(deployment).values(**new, **values))
    else:
        await connection.execute(sa.update(deployment).where(*_is(namespace, name)).values(**values))
    await _schedule(connection, namespace, model, now)
    if model.concurrency is not None and (old is None or old["concurrency"] is None):
        going = (run.c.namespace == namespace, run.c.deployment == name, run.c.ended.is_(None), run.c.gate.is_(None))
        await connection.execute(sa.update(run).where(*going).values(gate=1))  # they count from now on
    parts = [] if old is None else [key for key in definition if before.get(key) != definition[key]]
    parts += (
        [] if old is None else [key for key in ("parameter_schema", "version", "origin") if old[key] != values[key]]
    )
    change = Change(name, "created" if old is None else "updated", tuple(parts))
    await _audit(connection, namespace, name, actor, change.what, {"parts": parts, "origin": origin})
    return change


def _values(offer: Offer, definition: Mapping[str, Any]) -> dict[str, Any]:
    model, of = offer.model, offer.flow
    schema, written = json.dumps(of.parameters, sort_keys=True), json.dumps(definition, sort_keys=True)
    return {
        "flow": of.name,
        "module": of.module,
        "pool": model.pool,
        "parameters": json.dumps(model.parameters),
        "parameter_schema": schema,
        "limits": json.dumps(model.limits),
        "tags": json.dumps(model.tags),
        "concurrency": model.concurrency.limit if model.concurrency else None,
        "when_full": model.concurrency.when_full if model.concurrency else "queue",
        "version": of.version,
        "digest": derived_id("deployment", written, of.name, of.module, schema, of.version or ""),
        "definition": written,
    }


async def _schedule(connection: AsyncConnection, namespace: str, model: DeploymentModel, now: Instant) -> None:
    """The schedules; one that was there already keeps its time, whatever its parameters are now."""
    mine = (deployment_schedule.c.namespace == namespace, deployment_schedule.c.deployment == model.name)
    deleting = sa.delete(deployment_schedule).where(*mine)
    columns = (deployment_schedule.c.spec, deployment_schedule.c.next_at)
    going: dict[str, Instant] = {spec: at for spec, at in await connection.execute(deleting.returning(*columns))}
    for each in model.schedules:
        spec = spec_of(each)
        text, parameters = spec.to_json(), json.dumps(each.parameters, sort_keys=True)
        row = {"namespace": namespace, "deployment": model.name, "spec": text, "parameters": parameters}
        times = {"next_at": going[text] if text in going else next_due(spec, now), "updated": now}
        id_ = derived_id("deployment-schedule", text, parameters)
        await connection.execute(sa.insert(deployment_schedule).values(id=id_, **row, **times))


def spec_of(schedule: DeploymentScheduleModel) -> Spec:
    """As the scheduler reads it."""
    return Spec(schedule.every, schedule.cron, schedule.timezone, schedule.rrule)


async def _remove(connection: AsyncConnection, namespace: str, name: str, actor: str) -> Change:
    mine = (deployment_schedule.c.namespace == namespace, deployment_schedule.c.deployment == name)
    await connection.execute(sa.delete(deployment_schedule).where(*mine))
    await connection.execute(sa.delete(deployment).where(*_is(namespace, name)))
    await _audit(connection, namespace, name, actor, "removed")
    return Change(name, "removed")


async def _rows(connection: AsyncConnection, namespace: str, name: str | None = None) -> list[dict[str, Any]]:
    query = sa.select(deployment).where(deployment.c.namespace == namespace).order_by(deployment.c.name)
    query = query if name is None else query.where(deployment.c.name == name)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _audit(
    connection: AsyncConnection,
    namespace: str,
    name: str,
    actor: str,
    what: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    action, object_ = f"deployment.{what}", f"deployment/{name}"
    await write_audit(connection, namespace=namespace, actor=actor, action=action, object_=object_, detail=detail)


def _missing(name: str) -> DeploymentNotFoundError:
    return DeploymentNotFoundError(
        f"there is no deployment {name!r}; `penstock deployments list` shows those there are"
    )


def _is(namespace: str, name: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return deployment.c.namespace == namespace, deployment.c.name == name
