"""A run as it is shown: its row, its tasks and artifacts, the trace of its error, what it waits for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from penstock.events.instants import format_instant
from penstock.flows.states import State
from penstock.services.api.problems import not_found
from penstock.services.api.views import Row, Shown, fetch, shown
from penstock.services.database import Database, tables
from penstock.services.waits import ANSWER, CODE

_TRACE = "Traceback (most recent call last):"
_TRACE_LINES = 500
_FAR = 4_102_444_800_000_000  # the year 2100: not by its time
_ARTIFACT = frozenset({"kind", "data", "key", "description", "v"})  # penstock.flows.artifacts.Artifact


async def run_row(database: Database, namespace: str, id_: str) -> Row:
    """One row.  Raises Refusal 404."""
    run = tables.run
    found = await fetch(database, sa.select(run).where(run.c.namespace == namespace, run.c.id == id_))
    if not found:
        raise not_found("run", id_)
    return found[0]


def run_view(row: Row) -> Shown:
    """A run; `tries`: how often its code has been begun."""
    return shown(row) | {"tries": row["earlier"] + row["attempt"] + row["retries"]}


def calls_view(run: Row, rows: Iterable[Row]) -> tuple[list[Shown], list[Shown]]:
    """The finished calls of a run, in order, as tasks and as artifacts; of the artifacts of one key the latest."""
    tasks: list[Shown] = []
    artifacts: dict[str, Shown] = {}
    for row in rows:
        found = call_view(run, row)
        if "artifact" in found:
            name = found["artifact"]["key"] or row["call"]
            artifacts.pop(name, None)  # where it stands is where it was made last
            artifacts[name] = found["artifact"] | {"at": found["ended"]}
        else:
            tasks.append(found)
    return tasks, list(artifacts.values())


def call_view(run: Row, row: Row) -> Shown:
    """One finished call; one that made an artifact has it as `artifact`. Secrets are told by name."""
    found = shown({**row, "nonce": run["nonce"]})
    result = found.get("result")
    if row["name"] == "artifact" and isinstance(result, dict) and result.keys() <= _ARTIFACT and "kind" in result:
        found["artifact"] = {"key": "", "description": ""} | {k: v for k, v in result.items() if k != "v"}
    return found


async def trace_of(database: Database, run: Row) -> list[str]:
    """The lines of the error's traceback: the last thing that a failed try has logged."""
    if run["error"] is None:
        return []
    log = tables.run_log
    errors = (log.c.run_id == run["id"], log.c.level == "ERROR")
    last = sa.select(log.c.at).where(*errors).order_by(log.c.id.desc()).limit(1).scalar_subquery()
    query = sa.select(log.c.line).where(*errors, log.c.at == last).order_by(log.c.id).limit(_TRACE_LINES)
    lines = [str(row["line"]) for row in await fetch(database, query)]
    return lines if any(_TRACE in line for line in lines) else []


async def waits_for(database: Database, run: Row, changes: list[Shown]) -> str | None:
    """In words, for people; None for a run that has ended, or runs."""
    state, due = State(run["state"]), run["due_at"] <= time.time_ns() // 1_000
    detail = str(changes[-1]["detail"]) if changes else ""
    if state is State.RUNNING and run["asked"]:
        return f"its code, to {run['asked']} as {run['asked_by']} has asked"
    if run["waiting_for"] == CODE:
        return f"a choice, {detail}: `penstock runs resume {run['id']} --code continue`, or `--code restart`"
    if run["waiting_for"] == ANSWER and run["due_at"] >= _FAR:
        return detail or "an answer"
    if run["gate"] == 0 and state is State.RETRYING:
        return f"a place of deployment {run['deployment']}"
    if state is State.PAUSED:
        return f"{detail or 'somebody'}: `penstock runs resume {run['id']}` lets it go on"
    if state is State.SCHEDULED:
        return detail or f"its time, {format_instant(run['due_at'])}"
    if state in (State.WAITING, State.RETRYING) and not due:
        return f"{detail or 'its next try'}, until {format_instant(run['due_at'])} at the latest"
    if state in (State.PENDING, State.WAITING, State.RETRYING) and run["worker"] is None:
        worker = tables.worker
        online = sa.select(worker.c.id).where(worker.c.namespace == run["namespace"], worker.c.pool == run["pool"])
        none = "" if await fetch(database, online.limit(1)) else ", and none is online"
        return f"a worker of pool {run['pool']!r}{none}"
    return None


def json_line(value: dict[str, Any]) -> bytes:
    """One line of a stream."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
