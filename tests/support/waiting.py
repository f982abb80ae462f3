"""Flows that wait, and what tests do to their runs meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.rig import Rig
from tests.support.runs import rows, run_row

from penstock.automations.approval import Outcome, Vote
from penstock.events import Event
from penstock.services.approvals import decide
from penstock.services.database import Database, tables

FLOWS = """
import asyncio
from dataclasses import dataclass

from penstock.flows import (
    ApprovalRejected, EventTimeoutError, approve, approve_sync, flow, sleep, task, wait_for_event, wait_for_event_sync,
)


@dataclass
class Payment:
    amount: int
    note: str = "as agreed"


@task(run_name="note {word}")
def note(word: str) -> str:
    with open("PATH", "a") as file:
        file.write(word + "\\n")
    return word


@task
def join(first: str, second: str) -> str:
    return first + second


@flow(run_name="nap of {hours} h")
async def naps(hours: float = 1) -> str:
    before = note("before")
    await sleep(hours * 3600)
    return join(before, note("after"))


@flow
async def pays() -> str:
    note("asked")
    paid = await approve("Pay?", approvers=["user/ann", "user/bob"], form=Payment)
    return note(f"{type(paid).__name__}-{paid.amount}-{paid.note}".replace(" ", "_"))


@flow
def asks() -> str:
    try:
        found = approve_sync("Really?", approvers="user/ann", timeout=3600)
    except ApprovalRejected as error:
        return f"{type(error).__name__} {error.by} {error.comment}"
    return f"{found.by} {found.comment}"


@flow
async def asks_two() -> list:
    first, second = await asyncio.gather(
        approve("One?", approvers="user/ann"), approve("Two?", approvers="user/ann")
    )
    return [first.comment, second.comment]


@flow
def listens(subject: str, lookback: float = 0, timeout: float = 3600) -> int:
    where = {"subject": [subject], "data": {"n": [{"exists": True}]}}
    try:
        return wait_for_event_sync("order.*", where, lookback=lookback, timeout=timeout).data["n"]
    except EventTimeoutError:
        return -1


@flow
def listens_wrongly() -> None:
    wait_for_event_sync("order.paid", {"data": {"n": [{"numeric": ["?", 1]}]}})
"""


def write_flows(folder: Path) -> str:
    """The module of these flows; the words that its tasks note go into `folder / "notes"`."""
    path = folder / "waiting_flows.py"
    path.write_text(FLOWS.replace("PATH", str(folder / "notes")))
    return str(path)


def notes(folder: Path) -> list[str]:
    """The words noted so far."""
    path = folder / "notes"
    return path.read_text().split() if path.exists() else []


async def is_in(database: Database, run_id: str, state: str) -> bool:
    """Whether the run is in this state."""
    return bool((await run_row(database, run_id))["state"] == state)


async def pass_time(database: Database) -> None:
    """Let every sleep be over, and every run that waits for a time be due."""
    sleeps = tables.journal.c.name == "sleep"
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.journal).where(sleeps).values(result="1"))
        await connection.execute(sa.update(tables.run).where(tables.run.c.state == "waiting").values(due_at=1))


async def asked(database: Database, run_id: str) -> list[dict[str, Any]]:
    """The approvals that a run has asked for, oldest first."""
    found = await rows(database, tables.approval, tables.approval.c.run_id == run_id)
    return sorted(found, key=lambda row: row["ask"])


async def vote(rig: Rig, run_id: str, person: str, verdict: Any = "approve", number: int = 0, **more: Any) -> Outcome:
    """Decide one of the run's approvals."""
    approval = (await asked(rig.context.database, run_id))[number]
    return await decide(rig.context, approval["id"], Vote(person, verdict, "test", **more))


def order(subject: str, n: int, type_: str = "order.paid") -> Event:
    """An event that `listens` listens for."""
    return Event(type=type_, source="/shop", subject=subject, data={"n": n})


def result(row: dict[str, Any]) -> Any:
    """What a run returned."""
    return None if row["result"] is None else json.loads(row["result"])
