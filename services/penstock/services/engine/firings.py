"""Carries firings on: facts and timers, by the owner of the lane, under its epoch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.facts import AnyFact, Started, TimerDue
from penstock.automations.firing import Firing
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database import StaleEpochError, clock, is_broken, unavailable
from penstock.services.database.prepared import Prepared, Row, one_of
from penstock.services.database.records import publish_later
from penstock.services.database.tables import fact, firing
from penstock.services.dead_letters import Origin, dead_letter
from penstock.services.engine.compiled import CompiledRules
from penstock.services.engine.decisions import firing_row
from penstock.services.engine.dispatch import next_turn
from penstock.services.engine.effects import Effects, FlowPools, flows_of
from penstock.services.engine.ownership import Lane, Ownership, hold
from penstock.services.engine.relay import Relay

_log = structlog.get_logger()
_BATCH = 500
_decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)

_inbox = Prepared(sa.select(fact).where(one_of(fact.c.lane, "lanes")).order_by(fact.c.id).limit(_BATCH))
_taken = Prepared(sa.delete(fact).where(one_of(fact.c.id, "ids")))
_due = Prepared(
    sa.select(firing.c.id, firing.c.lane)
    .where(one_of(firing.c.lane, "lanes"), firing.c.wake_at <= sa.select(clock.now()).scalar_subquery())
    .limit(_BATCH)
)
_load = Prepared(sa.select(firing.c.id, firing.c.body).where(one_of(firing.c.id, "ids")))
_change = Prepared(
    sa.update(firing)
    .where(firing.c.id == sa.bindparam("b_id"))
    .values(
        {name: sa.bindparam(f"b_{name}") for name in ("status", "body", "wake_at", "format")} | {"updated": clock.now()}
    )
)


class Firings:
    """Advances the firings of the lanes that this process owns."""

    def __init__(
        self, context: Context, ownership: Ownership, rules: CompiledRules, relay: Relay, pools: FlowPools
    ) -> None:
        self._context, self._ownership, self._rules, self._relay = context, ownership, rules, relay
        self._database, self._pools = context.database, pools

    async def run(self) -> None:
        """Until cancelled; woken by hints, and looking by itself twice a second."""
        while True:
            await self._context.hints.wait(hint.FACTS, timeout=0.5)
            try:
                while await self.take_facts() == _BATCH:
                    pass
                await self.take_timers()
            except Exception as error:
                if not unavailable(error):
                    raise
                _log.warning("firings.database_away", error=str(error))
                await asyncio.sleep(0.25)

    async def take_facts(self) -> int:
        """One batch of the inbox.  Returns how many facts there were."""
        lanes = {lane.name: lane for lane in self._ownership.lanes()}
        async with self._database.read() as connection:
            rows = await _inbox.fetch(connection, lanes=list(lanes))
        by_lane: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_lane[row["lane"]].append(row)
        await asyncio.gather(*(self._guarded(lanes[name], mine) for name, mine in by_lane.items()))
        return len(rows)

    async def take_timers(self) -> None:
        """Firings whose timer is due."""
        lanes = {lane.name: lane for lane in self._ownership.lanes()}
        async with self._database.read() as connection:
            rows = await _due.fetch(connection, lanes=list(lanes))
        for row in rows:
            await self._guarded_timer(lanes[row["lane"]], row["id"])

    async def _guarded_timer(self, lane: Lane, firing_id: str) -> None:
        try:
            await self._wake(lane, firing_id)
        except StaleEpochError:
            await self._ownership.lost(lane)
        except Exception as error:
            if unavailable(error) or is_broken(error):
                raise
            _log.exception("firing.cannot_wake", firing=firing_id)
            due = msgspec.json.encode(TimerDue(await self._cursor(firing_id)))  # what a re-drive tells it again
            await self._bury_firing(lane, firing_id, f"{type(error).__name__}: {error}", due)

    async def _guarded(self, lane: Lane, rows: Sequence[Row]) -> None:
        try:
            await self._narrowed(lane, rows)
        except StaleEpochError:
            await self._ownership.lost(lane)

    async def _narrowed(self, lane: Lane, rows: Sequence[Row]) -> None:
        """Like a stage's batch: what cannot be handled is narrowed down, and buried alone."""
        try:
            await self._apply(lane, rows)
        except StaleEpochError:
            raise
        except Exception as error:
            if unavailable(error) or is_broken(error):
                raise
            if len(rows) == 1:
                _log.exception("firing.cannot_advance", firing=rows[0]["firing_id"])
                await self._bury(lane, rows[0], f"{type(error).__name__}: {error}")
                return
            half = len(rows) // 2
            await self._narrowed(lane, rows[:half])
            await self._narrowed(lane, rows[half:])

    async def _apply(self, lane: Lane, rows: Sequence[Row]) -> None:
        async with self._database.begin() as connection:
            await hold(connection, lane)
            firings = await self._load(connection, {row["firing_id"] for row in rows})
            effects = await self._effects(connection, lane, firings.values())
            for row in rows:
                if row["firing_id"] in firings:
                    found = firings[row["firing_id"]]
                    firings[row["firing_id"]] = await self._drive(effects, found, _decoder.decode(row["body"]))
            await self._save(connection, list(firings.values()))
            await self._take_turns(connection, effects, [each for each in firings.values() if each.ended])
            hints = await effects.write(connection)
            await _taken.fetch(connection, ids=[row["id"] for row in rows])
        self._relay.wake(hints)

    async def _wake(self, lane: Lane, firing_id: str) -> None:
        async with self._database.begin() as connection:
            await hold(connection, lane)
            found = await self._load(connection, {firing_id})
            effects = await self._effects(connection, lane, found.values())
            for value in found.values():
                driven = await self._drive(effects, value, TimerDue(value.cursor))
                await self._save(connection, [driven])
                await self._take_turns(connection, effects, [driven] if driven.ended else [])
            hints = await effects.write(connection)
        self._relay.wake(hints)

    async def _take_turns(self, connection: AsyncConnection, effects: Effects, ended: Iterable[Firing]) -> None:
        """Where `mode` lets firings of one key wait for each other: the next one starts."""
        for value in ended:
            rules = await self._rules.get(value.revision)
            automation = rules.automations.get(value.automation)
            waiting = None if automation is None else await next_turn(connection, automation, value)
            for found in (await self._load(connection, {waiting}) if waiting else {}).values():
                begun = msgspec.structs.replace(found, status="running")
                driven = await self._drive(effects, begun, Started())
                await self._save(connection, [driven])
                await self._take_turns(connection, effects, [driven] if driven.ended else [])

    async def _drive(self, effects: Effects, value: Firing, told: AnyFact) -> Firing:
        rules = await self._rules.get(value.revision)
        return effects.drive(value, told, self._database.skew.now(), rules.automations[value.automation])

    async def _effects(self, connection: AsyncConnection, lane: Lane, firings: Iterable[Firing]) -> Effects:
        needed: set[str] = set()
        for value in firings:
            rules = await self._rules.get(value.revision)
            needed |= flows_of(rules.automations[value.automation]) if value.automation in rules.automations else set()
        pools = await self._pools.get(connection, needed)
        return Effects(self._context.settings.namespace, lane.name, pools)

    async def _load(self, connection: AsyncConnection, ids: set[str]) -> dict[str, Firing]:
        return {row["id"]: Firing.from_json(row["body"]) for row in await _load.fetch(connection, ids=list(ids))}

    async def _cursor(self, firing_id: str) -> str:
        """The step in hand; "" where the firing cannot be read."""
        async with self._database.read() as connection:
            try:
                return (await self._load(connection, {firing_id}))[firing_id].cursor
            except (msgspec.MsgspecError, KeyError):
                return ""

    async def _save(self, connection: AsyncConnection, firings: Sequence[Firing]) -> None:
        rows = [{"b_" + name: value for name, value in firing_row(each).items()} for each in firings]
        await _change.many(connection, rows)

    async def _bury(self, lane: Lane, row: Row, reason: str) -> None:
        """A fact that cannot be applied: to the dead letters, and its firing ends."""
        done = sa.delete(fact).where(fact.c.id == row["id"])
        await self._bury_firing(lane, row["firing_id"], reason, row["body"].encode(), done)

    async def _bury_firing(self, lane: Lane, firing_id: str, reason: str, value: bytes, *more: sa.Executable) -> None:
        origin = Origin(lane.topic, lane.partition, firing=firing_id)
        letter = dead_letter(reason, origin, value=value, namespace=self._context.settings.namespace)
        async with self._database.begin() as connection:
            await hold(connection, lane)
            values = {"status": "dead_lettered", "wake_at": None, "updated": clock.now()}
            with contextlib.suppress(msgspec.MsgspecError):  # the body says so too, or the next fact would revive it
                for found in (await self._load(connection, {firing_id})).values():
                    values["body"] = msgspec.structs.replace(found, status="dead_lettered").to_json().decode()
            await connection.execute(sa.update(firing).where(firing.c.id == firing_id).values(**values))
            publish_later(connection, lane.name, [letter])
            for statement in more:
                await connection.execute(statement)
        self._relay.wake()
