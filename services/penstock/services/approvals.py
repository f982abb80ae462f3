"""Approvals in the database: the one function through which every channel decides, and the one that ends them in time.

A decision is one transaction: the approval (compare-and-set on its version), the audit, the fact for its firing or the
answer for its run, and the event for everybody else. Two votes at once: one is stored, the other is taken again on what
the first one left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import approval as rules
from penstock.automations.approval import Approval, Groups, Outcome, Vote
from penstock.automations.facts import ApprovalDecided
from penstock.automations.firing import Firing
from penstock.events.bus import Outgoing
from penstock.events.errors import PenstockError
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.flows.states import State
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database import clock, tables
from penstock.services.database.prepared import Row
from penstock.services.database.records import publish_later, service_lane, system_event, tell_firing, write_audit
from penstock.services.waits import CAUSES, answer, lock

SYSTEM = "system"
_BATCH = 200  # due approvals in one call
_ATTEMPTS = 20  # votes that another one overtook; people do not click that fast


class UnknownApprovalError(PenstockError, LookupError):
    """There is no such approval in this namespace."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(f"there is no approval {approval_id!r} here")


class _OvertakenError(PenstockError):
    """Another vote was stored in between; nothing of this one was."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """An approval as it was read, with what belongs to its row alone."""

    approval: Approval
    namespace: str
    version: int
    firing_id: str | None
    lane: str | None
    step: str | None
    automation: str | None
    run: Row | None  # whose code asks; ours until the end of the transaction
    call: str | None

    @property
    def is_idle(self) -> bool:
        """The run that asks has ended, and has not withdrawn the question yet."""
        return self.run is not None and State(self.run["state"]).is_final and self.approval.final is None


async def decide(context: Context, approval_id: str, vote: Vote, *, namespace: str | None = None) -> Outcome:
    """Take one vote, from whichever channel.  namespace: the voter's; none: the settings'.

    Raises UnknownApprovalError. A vote that comes too late, or that may not be, changes nothing: the outcome says so.
    """
    groups = groups_of(context, namespace or context.settings.namespace)
    for _ in range(_ATTEMPTS):
        try:
            return await _vote(context, approval_id, vote, namespace or context.settings.namespace, groups)
        except _OvertakenError:
            continue
    raise PenstockError(f"approval {approval_id!r} changes faster than it can be decided; try again")


async def expire_due(context: Context, now: Instant) -> int:
    """End the approvals whose deadline has come, as their `on_timeout` says.  Returns how many.

    now: of the database's clock. Safe to call by several processes at once.
    """
    row = tables.approval
    due = (
        sa.select(row.c.id)
        .where(row.c.status == "pending", row.c.expires_at <= now)
        .order_by(row.c.expires_at)
        .limit(_BATCH)
    )
    async with context.database.read() as connection:
        ids = [str(found) for found in (await connection.execute(due)).scalars()]
    ended = 0
    for id_ in ids:
        try:
            ended += await _expire(context, id_, now)
        except _OvertakenError:  # a vote came first, or another process: the next call sees what is left
            continue
    return ended


def groups_of(context: Context, namespace: str) -> Groups:
    """The persons of each group, by the rules in force."""
    found = context.rulebook.current.rules.groups
    return {name: group.members for (space, name), group in found.items() if space == namespace}


async def _vote(context: Context, id_: str, vote: Vote, namespace: str, groups: Groups) -> Outcome:
    async with context.database.begin() as connection:
        stored, now = await _load(connection, id_, namespace)
        if stored.is_idle:
            changed, outcome = rules.refresh(stored.approval, f"void: {stored.approval.shown}", now)
        else:
            changed, outcome = rules.decide(stored.approval, vote, now, groups=groups)
        detail: dict[str, Any] = {
            "verdict": vote.verdict,
            "channel": vote.channel,
            "shown": vote.shown or stored.approval.shown,
        }
        detail |= {"form": vote.form} if vote.form else {}
        detail |= {"comment": vote.comment, "outcome": outcome.kind}
        if changed is not stored.approval:
            await _store(connection, stored, changed)
        by_time = outcome.kind == "expired"  # the vote came too late; what is decided was not decided by it
        action = "approval.decided" if outcome.decided and not by_time else "approval.voted"
        if by_time:
            await _audit_expiry(connection, stored, changed)
        await write_audit(
            connection,
            namespace=stored.namespace,
            actor=vote.person,
            action=action,
            object_=f"approval/{id_}",
            detail=detail,
        )
    if changed.final is not None and outcome.decided:
        await context.hints.give(hint.OUTBOX, hint.RUNS if stored.run else hint.FACTS)
    return outcome


async def _expire(context: Context, id_: str, now: Instant) -> int:
    async with context.database.begin() as connection:
        stored, _ = await _load(connection, id_, None)
        changed, _ = rules.expire(stored.approval, now)
        if changed is stored.approval:
            return 0
        await _store(connection, stored, changed)
        await _audit_expiry(connection, stored, changed)
    await context.hints.give(hint.OUTBOX, hint.RUNS if stored.run else hint.FACTS)
    return 1


async def _audit_expiry(connection: AsyncConnection, stored: _Stored, changed: Approval) -> None:
    await write_audit(
        connection,
        namespace=stored.namespace,
        actor=SYSTEM,
        action="approval.expired",
        object_=f"approval/{changed.id}",
        detail={"outcome": changed.final},
    )


async def _load(connection: AsyncConnection, id_: str, namespace: str | None) -> tuple[_Stored, Instant]:
    row = tables.approval
    # The run's row comes first, as with everybody who changes what it waits for.
    run_id = (await connection.execute(sa.select(row.c.run_id).where(row.c.id == id_))).scalar()
    run = await lock(connection, run_id) if run_id else None
    query = sa.select(row, clock.now().label("now")).where(row.c.id == id_)
    if namespace is not None:
        query = query.where(row.c.namespace == namespace)
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        raise UnknownApprovalError(id_)
    approval = Approval.from_json(found.body)
    of_firing = (found.firing_id, found.lane, found.step, found.automation)
    return _Stored(approval, found.namespace, found.version, *of_firing, run, found.call), int(found.now)


async def _store(connection: AsyncConnection, stored: _Stored, changed: Approval) -> None:
    """Write the approval if nobody was faster, and tell of it once it is final.  Raises _OvertakenError."""
    row = tables.approval
    values = {"body": changed.to_json().decode(), "version": stored.version + 1, "decided": changed.decided_at}
    update = (
        sa.update(row)
        .where(row.c.id == changed.id, row.c.version == stored.version)
        .values(status=changed.final or "pending", **values)
    )
    if (await connection.execute(update)).rowcount != 1:
        raise _OvertakenError
    if changed.final is None:
        return
    publish_later(connection, service_lane(changed.id), [await _event(connection, stored, changed)])
    if stored.firing_id and stored.lane and stored.step:
        comment = changed.votes[-1].comment if changed.votes and changed.decided_by else ""
        fact = ApprovalDecided(stored.step, changed.final, changed.decided_by, changed.decided_at, comment)
        await tell_firing(
            connection,
            namespace=stored.namespace,
            firing_id=stored.firing_id,
            lane=stored.lane,
            fact=msgspec.json.encode(fact),
        )
    if stored.run is not None and stored.call is not None and not stored.is_idle:
        detail = f"{changed.final} by {changed.decided_by}" if changed.decided_by else str(changed.final)
        body = msgspec.json.encode(_answer(changed))
        await answer(connection, stored.run, stored.call, body, actor=changed.decided_by or SYSTEM, detail=detail)


def _answer(changed: Approval) -> dict[str, Any]:
    """What the run's code reads."""
    last = changed.votes[-1] if changed.votes and changed.decided_by else None
    found = {"outcome": changed.final, "by": changed.decided_by, "at": changed.decided_at}
    return found | {"comment": last.comment if last else "", "form": last.form if last else None}


async def _event(connection: AsyncConnection, stored: _Stored, changed: Approval) -> Outgoing:
    """`penstock.approval.decided`, or `.expired` where time decided."""
    timed_out = changed.decided_by is None and changed.final != "void"
    type_ = "penstock.approval.expired" if timed_out else "penstock.approval.decided"
    data = {"outcome": changed.final, "by": changed.decided_by, "ask": changed.ask}
    data |= {"run": stored.run["id"]} if stored.run else {"automation": stored.automation, "firing": stored.firing_id}
    cause = stored.run or _causes(await _firing(connection, stored.firing_id))
    return system_event(
        type_,
        subject=changed.id,  # as of penstock.approval.requested: one key, hence one order
        data=data,
        at=changed.decided_at or 0,
        namespace=stored.namespace,
        event_id=derived_id(type_, changed.id),
        **{name: cause[name] for name in CAUSES if name in cause},
    )


def _causes(firing: Firing | None) -> dict[str, Any]:
    return {name: getattr(firing, name) for name in CAUSES} if firing else {}


async def _firing(connection: AsyncConnection, firing_id: str | None) -> Firing | None:
    row = tables.firing
    body = (await connection.execute(sa.select(row.c.body).where(row.c.id == firing_id))).scalar()
    return Firing.from_json(body) if body else None
