"""Which runs are meant: the filters of the list and of operations on many runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import Instant
from penstock.flows.states import State
from penstock.services.database.tables import firing, flow, run


@dataclass(frozen=True, slots=True)
class RunFilter:
    """All that is given has to hold; of several states one.

    firing: the id of the firing that launched it.  automation: the one whose firing did.  tag: its own, or of its
    flow, as its worker has registered it.  since, until: instants of its making, until not included.
    """

    states: tuple[State, ...] = ()
    flow: str | None = None
    deployment: str | None = None
    firing: str | None = None
    automation: str | None = None
    tag: str | None = None
    since: Instant | None = None
    until: Instant | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every run is meant."""
        return self == RunFilter()

    async def where(self, connection: AsyncConnection, namespace: str) -> list[sa.ColumnElement[bool]]:
        """As conditions on the rows of `run`."""
        found = [run.c.namespace == namespace]
        if self.states:
            found.append(run.c.state.in_([state.value for state in self.states]))
        if self.flow is not None:
            found.append(run.c.flow == self.flow)
        if self.deployment is not None:
            found.append(run.c.deployment == self.deployment)
        if self.firing is not None:
            found.append(run.c.firing_id == self.firing)
        if self.automation is not None:
            of_it = (firing.c.namespace == namespace, firing.c.automation == self.automation)
            found.append(run.c.firing_id.in_(sa.select(firing.c.id).where(*of_it)))
        if self.tag is not None:
            of_flow = run.c.flow.in_(await _flows_with(connection, namespace, self.tag))
            found.append(of_flow | run.c.tags.contains(json.dumps(self.tag), autoescape=True))
        if self.since is not None:
            found.append(run.c.created >= self.since)
        if self.until is not None:
            found.append(run.c.created < self.until)
        return found


async def _flows_with(connection: AsyncConnection, namespace: str, tag: str) -> list[str]:
    rows: Iterable[Any] = await connection.execute(
        sa.select(flow.c.name, flow.c.options).where(flow.c.namespace == namespace)
    )
    return [row.name for row in rows if tag in json.loads(row.options).get("tags", ())]
