"""What a worker tells of itself: the flows that it can run, and that it is there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import microseconds
from penstock.services.database import clock
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.database.tables import flow, worker
from penstock.services.runs import FORMAT
from penstock.services.worker.frames import FlowInfo

SILENT = timedelta(seconds=30)  # without a heartbeat: the worker is taken as gone, and told as offline


async def register_flows(
    connection: AsyncConnection,
    namespace: str,
    pool: str,
    flows: Iterable[FlowInfo],
    versions: Mapping[str, str | None] = MappingProxyType({}),
) -> None:
    """Write what these flows are; the last worker that registers a name says where it runs.

    versions: the git commit by the place of a flow.
    """
    rows = [
        {
            "namespace": namespace,
            "name": each.name,
            "pool": pool,
            "module": each.module,
            "parameters": json.dumps(each.parameters),
            "options": json.dumps(options_of(each)),
            "version": versions.get(each.place),
        }
        for each in flows
    ]
    if not rows:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(flow).values(updated=clock.now())
    new = {name: statement.excluded[name] for name in ("pool", "module", "parameters", "options", "version", "updated")}
    await connection.execute(statement.on_conflict_do_update(index_elements=["namespace", "name"], set_=new), rows)


async def flows_of(connection: AsyncConnection, namespace: str, pool: str, modules: Iterable[str]) -> list[str]:
    """The names that were registered from these modules, in order."""
    where = (flow.c.namespace == namespace, flow.c.pool == pool, flow.c.module.in_(sorted(modules)))
    return list((await connection.execute(sa.select(flow.c.name).where(*where).order_by(flow.c.name))).scalars())


async def come_online(connection: AsyncConnection, name: str, namespace: str, pool: str) -> None:
    """Enter the worker, with its event."""
    row = {"id": name, "namespace": namespace, "pool": pool, "host": socket.gethostname(), "pid": os.getpid()}
    times = {"started": clock.now(), "seen": clock.now()}
    await connection.execute(sa.insert(worker).values(**row, **times, format=FORMAT))
    await _tell(connection, "online", name, namespace, pool, "")


async def heartbeat(connection: AsyncConnection, name: str) -> bool:
    """Say that the worker is there.  Returns False if it was taken as gone, and has to come online again."""
    found = await connection.execute(sa.update(worker).where(worker.c.id == name).values(seen=clock.now()))
    return bool(found.rowcount)


async def go_offline(connection: AsyncConnection, name: str, detail: str = "stopped") -> None:
    """Strike the worker out, with its event."""
    await _strike_out(connection, worker.c.id == name, detail)


async def all_go_offline(connection: AsyncConnection) -> None:
    """Strike out every worker, where none of them can be alive any more."""
    await _strike_out(connection, sa.true(), "its process is gone")


async def strike_out_silent(connection: AsyncConnection) -> None:
    """Strike out the workers that have given no heartbeat for long; their runs come free by their leases."""
    silent = worker.c.seen < clock.now() - microseconds(SILENT)
    await _strike_out(connection, silent, f"no sign of life for {SILENT.total_seconds():g} s")


async def _strike_out(connection: AsyncConnection, which: sa.ColumnElement[bool], detail: str) -> None:
    columns = (worker.c.id, worker.c.namespace, worker.c.pool)
    for row in (await connection.execute(sa.delete(worker).where(which).returning(*columns))).all():
        await _tell(connection, "offline", row.id, row.namespace, row.pool, detail)


async def _tell(connection: AsyncConnection, what: str, name: str, namespace: str, pool: str, detail: str) -> None:
    at = (await connection.execute(sa.select(clock.now()))).scalar_one()
    data = {"worker": name, "pool": pool} | ({"detail": detail} if detail else {})
    event = system_event(f"penstock.worker.{what}", subject=f"worker/{name}", data=data, at=at, namespace=namespace)
    publish_later(connection, service_lane(name), [event])


def options_of(info: FlowInfo) -> dict[str, object]:
    """What the table `flow` keeps of a flow beside its parameters."""
    return {
        "limits": info.limits,
        "tags": info.tags,
        "retries": info.retries,
        "retry_delays": info.retry_delays,
        "timeout": info.timeout,
        "place": info.place,
        "doc": info.doc,
    }
