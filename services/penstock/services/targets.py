"""What a name stands for that a rule or a person runs: a deployment, else a flow that is registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.services.database.prepared import Prepared, Row
from penstock.services.database.tables import deployment, flow
from penstock.services.runs import NewRun

_OF_FLOW = [flow.c[name] for name in ("name", "module", "pool", "options", "version")]
_OF_DEPLOYMENT = [
    deployment.c[name]
    for name in ("name", "flow", "pool", "parameters", "limits", "tags", "version", "concurrency", "paused")
]
_flows = Prepared(sa.select(*_OF_FLOW).where(flow.c.namespace == sa.bindparam("of")))
_deployments = Prepared(sa.select(*_OF_DEPLOYMENT).where(deployment.c.namespace == sa.bindparam("of")))


@dataclass(frozen=True, slots=True)
class Target:
    """What every run of a name has. flow, pool: as workers claim them.  parameters: what is given goes over them.

    version: the git commit of the flow's folder.  limited: its deployment has a place for so many runs at once.
    paused: its schedules start no run; everything else still does.
    """

    flow: str
    pool: str
    deployment: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    version: str | None = None
    limited: bool = False
    paused: bool = False

    def run(self, id_: str, parameters: Mapping[str, Any], *, pool: str | None = None, **more: Any) -> NewRun:
        """A run of it.  parameters: over the defaults.  pool: instead of its own.  more: of NewRun, e.g. its cause.

        Where `limited`, the caller gives the hint PLACES after the commit, not only RUNS.
        """
        return NewRun(
            id_,
            self.flow,
            msgspec.json.encode({**self.parameters, **parameters}).decode(),
            pool=pool or self.pool,
            limits=self.limits,
            deployment=self.deployment,
            version=self.version,
            tags=self.tags,
            gate=0 if self.limited else None,
            **more,
        )


async def all_targets(connection: AsyncConnection, namespace: str) -> dict[str, Target]:
    """Everything that can be run there, by each of its names: deployment, flow, module:flow. Deployments come first."""
    found: dict[str, Target] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for row in await _flows.fetch(connection, of=namespace):
        tags[row["name"]] = tuple(json.loads(row["options"]).get("tags", ()))
        target = Target(row["name"], row["pool"], tags=tags[row["name"]], version=row["version"])
        found[row["name"]] = found[f"{row['module']}:{row['name']}"] = target
    for row in await _deployments.fetch(connection, of=namespace):
        target = target_of(row)
        found[row["name"]] = replace(target, tags=tuple(dict.fromkeys((*tags.get(target.flow, ()), *target.tags))))
    return found


async def resolve_target(connection: AsyncConnection, namespace: str, name: str) -> Target | None:
    """What `name` runs: a deployment, else a flow by its name or as module:flow; None where there is neither."""
    return (await all_targets(connection, namespace)).get(name)


def target_of(row: Row) -> Target:
    """The target of a row of `deployment`."""
    return Target(
        row["flow"],
        row["pool"],
        row["name"],
        json.loads(row["parameters"]),
        tuple(json.loads(row["limits"])),
        tuple(json.loads(row["tags"])),
        row["version"],
        row["concurrency"] is not None,
        bool(row["paused"]),
    )
