"""Between a decision and its actions: `storm`, which spans the keys of an automation, and `mode`, turn by turn per key.

Whoever decides for a key whose rule has a `mode` owns its partition, and holds its row: so turns need no lock of their
own. A storm's row is locked, after the partition's; several in the order of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import Automation
from penstock.automations.firing import FINAL, Firing
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, format_instant
from penstock.flows.states import State
from penstock.services.context import Context
from penstock.services.database import clock
from penstock.services.database.late import at_the_end
from penstock.services.database.prepared import Prepared
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.database.tables import approval, decision, firing, run, storm
from penstock.services.engine.suppressions import note
from penstock.services.runs import change_state
from penstock.triggers import modes
from penstock.triggers.decisions import Decision
from penstock.triggers.forms import Limit, Mode, Schedule
from penstock.triggers.modes import Unended, next_to_start
from penstock.triggers.stages import noted, suppressed, throttled
from penstock.triggers.state import Passed

Begun = tuple["Made", Firing]


@dataclass(frozen=True, slots=True)
class Made:
    """A decision of the core, and the automation that it is of, as of the revision that made it."""

    automation: Automation
    decision: Decision

    @property
    def id(self) -> str:
        """Derived from its cause."""
        return self.decision.id

    @property
    def takes_turns(self) -> bool:
        """Whether `mode` looks at it: a resolve passes no stage."""
        return mode_of(self.automation) != "parallel" and self.decision.kind == "fired"


_demote = Prepared(
    sa.update(decision)
    .where(decision.c.id == sa.bindparam("which"))
    .values(kind="suppressed", reason=sa.bindparam("why"))
)
_unended = Prepared(
    sa.select(firing.c.id, firing.c.status)
    .where(
        firing.c.namespace == sa.bindparam("of"),
        firing.c.automation == sa.bindparam("rule"),
        firing.c.key == sa.bindparam("whose"),
        sa.or_(*(firing.c.status == status for status in ("queued", "running", "waiting"))),
    )
    .order_by(firing.c.created, firing.c.id)
)


def mode_of(automation: Automation) -> Mode:
    """What a firing does while others of its key have not ended; `overlap: skip` of a schedule says "drop it", too."""
    mode, trigger = automation.rule.stages.mode, automation.rule.trigger
    skips = isinstance(trigger, Schedule) and trigger.overlap == "skip"
    return "single" if skips and mode == "parallel" else mode


def demote(connection: AsyncConnection, made: Made, reason: str) -> None:
    """The decision is recorded already, and nothing comes of it."""
    at_the_end(connection, _demote, [{"which": made.id, "why": reason}])
    note(connection, [suppressed(made.automation.rule, made.decision, reason)])


def queued(value: Firing) -> Firing:
    """A firing that waits for its turn."""
    return msgspec.structs.replace(value, status="queued")


async def admit(connection: AsyncConnection, made: Made) -> Literal["start", "wait", "drop"]:
    """Where a firing goes whose rule has a `mode`; those that it replaces end here, and a drop is noted."""
    if made.automation.shadow:
        return "start"
    found = made.decision
    before = await unended(connection, found.namespace, found.automation, found.key)
    admission = modes.admit(mode_of(made.automation), before)
    for id_ in admission.replaced:
        await cancel(connection, id_, admission.reason)
    if admission.act == "drop":
        demote(connection, made, admission.reason)
    return admission.act


async def unended(connection: AsyncConnection, namespace: str, automation: str, key: str) -> list[Unended]:
    """The firings of an automation and key that have not ended, in order of their decisions."""
    rows = await _unended.fetch(connection, of=namespace, rule=automation, whose=key)
    return [Unended(row["id"], waiting=row["status"] == "queued") for row in rows]


async def next_turn(connection: AsyncConnection, automation: Automation, ended: Firing) -> str | None:
    """Which firing starts now that one of its key has ended; None where nobody waits."""
    if mode_of(automation) == "parallel" or ended.trigger.get("kind") != "fired":
        return None
    key = (await connection.execute(sa.select(firing.c.key).where(firing.c.id == ended.id))).scalar()
    if key is None:
        return None
    left = await unended(connection, ended.namespace, ended.automation, key)
    return next_to_start(mode_of(automation), [each for each in left if each.id != ended.id])


async def cancel(connection: AsyncConnection, firing_id: str, reason: str) -> None:
    """End a firing from outside: its runs are cancelled, what it asks for is void, what it would do is not done."""
    row = (await connection.execute(sa.select(firing.c.body).where(firing.c.id == firing_id))).first()
    if row is None:
        return
    found = Firing.from_json(row.body)
    if found.status in FINAL:
        return
    after = msgspec.structs.replace(found, status="cancelled", retry_at=None, deadline=None)
    values = {"status": after.status, "body": after.to_json().decode(), "wake_at": None, "updated": clock.now()}
    await connection.execute(sa.update(firing).where(firing.c.id == firing_id).values(**values))
    runs = sa.select(run.c.id).where(run.c.firing_id == firing_id, run.c.ended.is_(None))
    for (run_id,) in (await connection.execute(runs)).all():
        await change_state(connection, run_id, None, State.CANCELLED, detail=reason)
    asked = (approval.c.firing_id == firing_id) & (approval.c.status == "pending")
    await connection.execute(sa.update(approval).where(asked).values(status="void", decided=clock.now()))
    data = {"automation": found.automation, "firing": found.id, "stage": "mode", "reason": reason}
    told = system_event(
        "penstock.automation.suppressed",
        subject=found.automation,
        data=data,
        at=(await connection.execute(sa.select(clock.now()))).scalar_one(),
        namespace=found.namespace,
        event_id=derived_id("replaced", found.id),
        correlationid=found.correlationid,
        causationid=found.causationid,
        hops=min(found.hops + 1, 1_000),
    )
    publish_later(connection, service_lane(found.automation), [told])


_locked = Prepared(
    sa.select(storm)
    .where(storm.c.namespace == sa.bindparam("of"), storm.c.automation == sa.bindparam("rule"))
    .with_for_update()
)


def _storing(insert: type[postgresql.Insert] | type[sqlite.Insert], *, first: bool) -> Any:
    names = ("namespace", "automation", "log", "dropped", "due_at", "first_id", "last_id")
    statement = insert(storm).values({name: sa.bindparam(name, type_=storm.c[name].type) for name in names})
    if first:
        return statement.on_conflict_do_nothing()
    changed = {name: statement.excluded[name] for name in names[2:]}
    return statement.on_conflict_do_update(index_elements=["namespace", "automation"], set_=changed)


_make = Prepared(_storing(postgresql.Insert, first=True), _storing(sqlite.Insert, first=True))
_change = Prepared(_storing(postgresql.Insert, first=False), _storing(sqlite.Insert, first=False))
_CALM = {"log": msgspec.msgpack.encode(()), "dropped": 0, "due_at": None, "first_id": None, "last_id": None}


async def through_storms(connection: AsyncConnection, begun: Sequence[Begun]) -> list[Begun]:
    """Those that their automation's `storm` lets through; the others are counted for the digest."""
    stormy: dict[tuple[str, str], list[Begun]] = {}
    for each in begun:
        if each[0].automation.rule.stages.storm is not None and each[0].decision.kind == "fired":
            stormy.setdefault((each[0].decision.namespace, each[0].decision.automation), []).append(each)
    held: set[str] = set()
    for (namespace, name), mine in sorted(stormy.items(), key=lambda item: item[0]):
        held |= await _through(connection, namespace, name, mine)
    return [each for each in begun if each[0].id not in held]


async def _through(connection: AsyncConnection, namespace: str, name: str, begun: Sequence[Begun]) -> set[str]:
    row = {"namespace": namespace, "automation": name}
    await _make.fetch(connection, **row, **_CALM)
    kept = dict((await _locked.fetch(connection, of=namespace, rule=name))[0])
    log = msgspec.msgpack.decode(kept["log"], type=tuple[Passed, ...])
    held: set[str] = set()
    for made, _ in begun:
        spec = made.automation.rule.stages.storm
        if spec is None:
            continue
        limits = (Limit(spec.n, spec.span),)
        if not throttled(limits, log, made.decision.at):
            log = noted(limits, log, made.decision.at)
            continue
        demote(connection, made, f"storm: more than {spec.n} of all keys")
        held.add(made.id)
        kept["first_id"] = kept["first_id"] or made.id
        kept |= {"last_id": made.id, "dropped": kept["dropped"] + 1}
        kept["due_at"] = kept["due_at"] or made.decision.at + spec.span
    await _change.fetch(connection, **(kept | {"log": msgspec.msgpack.encode(log)}))
    return held


async def tell_storms(context: Context, now: Instant) -> int:
    """`penstock.automation.storm`, one digest for each flood.  Returns how many were told."""
    due = sa.select(storm).where(storm.c.due_at <= now).with_for_update(skip_locked=True)
    async with context.database.begin() as connection:
        rows = (await connection.execute(due)).mappings().all()
        for row in rows:
            publish_later(connection, service_lane(row["automation"]), [_digest(row)])
            mine = (storm.c.namespace == row["namespace"]) & (storm.c.automation == row["automation"])
            calm = {"dropped": 0, "due_at": None, "first_id": None, "last_id": None}
            await connection.execute(sa.update(storm).where(mine).values(**calm))
    return len(rows)


def _digest(row: sa.RowMapping) -> Any:
    data = {name: row[name] for name in ("automation", "first_id", "last_id")}
    return system_event(
        "penstock.automation.storm",
        subject=row["automation"],
        data=data | {"count": row["dropped"], "until": format_instant(row["due_at"])},
        at=row["due_at"],
        namespace=row["namespace"],
        event_id=derived_id("storm", row["namespace"], row["automation"], row["first_id"]),
    )
