"""Stage two: reads `penstock.matches`, holds the windows, and decides.

One transaction per partition and batch: position, origins, identities seen, windows, decisions, firings, outbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import bus
from penstock.events.bus import Outgoing, Record
from penstock.events.errors import PositionLostError
from penstock.events.event import Envelope, decode
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services.context import Context
from penstock.services.database import clock
from penstock.services.database.records import publish_later, system_event
from penstock.services.database.tables import origin, progress, seen, state
from penstock.services.engine.compiled import Compiled, CompiledRules
from penstock.services.engine.decisions import Decisions, Made
from penstock.services.engine.fold import Folded, Match, Place, fold, places
from penstock.services.engine.match_records import decode as decode_match
from penstock.services.engine.ownership import Lane, Ownership, advance_position
from penstock.services.engine.relay import Relay
from penstock.services.engine.stage_one import dead_letter_of, tell_gap
from penstock.triggers import count
from penstock.triggers.count import Window

_log = structlog.get_logger()
_IDENTITIES = 24 * 3600 * 1_000_000  # microseconds for which a repeated (source, id) is recognised
_SETTLE = 10.0  # seconds after which a position moves although there was nothing but progress

Origin = tuple[str, int]


@dataclass(slots=True)
class Memory:
    """What a match partition's owner keeps in memory, as committed."""

    origins: dict[Origin, int] = field(default_factory=dict)
    clocks: dict[Origin, Instant] = field(default_factory=dict)
    settled: float = 0.0


@dataclass(slots=True)
class Batch:
    """A batch, decoded: the matches that are new, and the origins and clocks after it."""

    matches: list[Match] = field(default_factory=list)
    revision: int = 0  # 0: none of the records needs one
    end: int = 0  # the position after it
    origins: dict[Origin, int] = field(default_factory=dict)
    clocks: dict[Origin, Instant] = field(default_factory=dict)


class StageTwo:
    """The stage over `penstock.matches`."""

    def __init__(
        self, context: Context, ownership: Ownership, rules: CompiledRules, decisions: Decisions, relay: Relay
    ) -> None:
        self._context, self._ownership, self._rules = context, ownership, rules
        self._decisions, self._relay = decisions, relay
        self._database = context.database
        self._namespace = context.settings.namespace
        self._memory: dict[Lane, Memory] = {}

    async def taken(self, lane: Lane) -> None:
        """Load how far each source partition has been applied here, and how far it had been read."""
        memory = Memory(settled=time.monotonic())
        async with self._database.read() as connection:
            for row in await connection.execute(sa.select(origin).where(origin.c.partition == lane.partition)):
                memory.origins[row.origin_topic, row.origin_partition] = row.origin_offset
            for row in await connection.execute(sa.select(progress).where(progress.c.partition == lane.partition)):
                memory.clocks[row.origin_topic, row.origin_partition] = row.at
        # Others that were lost meanwhile may still be in hand: they are dropped when they are taken again.
        self._memory = {each: kept for each, kept in self._memory.items() if each.key != lane.key}
        self._memory[lane] = memory

    async def handle(self, lane: Lane, records: Sequence[Record]) -> None:
        """Take new matches into their windows, and commit; one transaction for each stretch of one revision."""
        memory = self._memory[lane]
        for batch in read_batches(memory, records):
            if batch.matches:
                await self._decide(lane, batch)
            lane.read = batch.end  # not before: what is cut off here must be read again
            memory.origins |= batch.origins
            memory.clocks |= batch.clocks

    async def bury(self, lane: Lane, record: Record, reason: str, stack: str) -> None:
        """Commit past one record, with a dead letter."""
        async with self._database.begin() as connection:
            await advance_position(connection, lane, to=record.offset + 1)
            publish_later(connection, lane.name, [dead_letter_of(record, reason, self._namespace, stack)])
        lane.position = lane.read = record.offset + 1
        self._relay.wake()

    def overdue(self, lane: Lane) -> bool:
        """Where there was nothing but progress, every ten seconds."""
        return time.monotonic() - self._memory[lane].settled >= _SETTLE

    async def settle(self, lane: Lane) -> None:
        """Store the position and the clock; drop windows that the clock has left behind."""
        if lane.read == lane.position:
            return
        memory = self._memory[lane]
        async with self._database.begin() as connection:
            await advance_position(connection, lane, to=lane.read)
            await self._save_clocks(connection, lane.partition, memory.clocks)
            if self._every_source_told(memory):
                await self._drop_past(connection, lane.partition, min(memory.clocks.values()))
        lane.position = lane.read
        memory.settled = time.monotonic()

    async def gap(self, lane: Lane, lost: PositionLostError) -> None:
        """Go on from the oldest record left, and say what is missing."""
        await tell_gap(self._context, lane, lost)

    async def _decide(self, lane: Lane, batch: Batch) -> None:
        rules = await self._rules.get(batch.revision)
        async with self._database.begin() as connection:
            await advance_position(connection, lane, to=batch.end, revision=batch.revision)
            fresh = await self._unseen(connection, lane.partition, batch)
            folded = fold(fresh, await self._windows(connection, places(fresh)), _triggers(rules))
            await self._save(connection, lane, batch, folded)
            hints = await self._decisions.write(connection, lane, rules, _made(rules, folded))
            publish_later(connection, lane.name, self._late(folded))
        lane.position, lane.revision = batch.end, batch.revision
        self._memory[lane].settled = time.monotonic()
        if folded.decided or folded.late:
            self._relay.wake(hints)

    def _every_source_told(self, memory: Memory) -> bool:
        """Whether the clock is one: a source partition that has never told its progress may have a backlog."""
        sources = {(name, n) for name in (bus.EVENTS, bus.SYSTEM) for n in range(self._ownership.partitions(name))}
        return bool(sources) and sources <= memory.clocks.keys()

    async def _drop_past(self, connection: AsyncConnection, partition: int, now: Instant) -> None:
        """By the stream's clock, never by the wall's: while a backlog is read, its windows are still open."""
        closed = (state.c.partition == partition) & (state.c.expires_at < now)
        await connection.execute(sa.delete(state).where(closed))
        forgotten = (seen.c.partition == partition) & (seen.c.at < now - _IDENTITIES)
        await connection.execute(sa.delete(seen).where(forgotten))

    async def _unseen(self, connection: AsyncConnection, partition: int, batch: Batch) -> list[Match]:
        """Without those whose (source, id) took part before; the new ones are remembered."""
        digests = {identity(match.envelope) for match in batch.matches}
        query = sa.select(seen.c.digest).where(seen.c.partition == partition, seen.c.digest.in_(digests))
        known = {bytes(digest) for (digest,) in await connection.execute(query)}
        fresh: dict[bytes, Match] = {}
        for match in batch.matches:
            digest = identity(match.envelope)
            if digest not in known:
                fresh.setdefault(digest, match)
        rows = [{"partition": partition, "digest": each, "at": match.arrival} for each, match in fresh.items()]
        if rows:
            await connection.execute(self._database.insert(seen).on_conflict_do_nothing(), rows)
        return list(fresh.values())

    async def _windows(self, connection: AsyncConnection, wanted: set[Place]) -> dict[Place, Window]:
        ids = {place.id(self._namespace): place for place in wanted}
        rows = await connection.execute(sa.select(state.c.id, state.c.body).where(state.c.id.in_(list(ids))))
        return {ids[row.id]: count.decode(row.body) for row in rows}

    async def _save(self, connection: AsyncConnection, lane: Lane, batch: Batch, folded: Folded) -> None:
        empty = [place.id(self._namespace) for place, window in folded.windows.items() if not window.matches]
        if empty:
            await connection.execute(sa.delete(state).where(state.c.id.in_(empty)))
        rules = await self._rules.get(batch.revision)
        rows = [
            {
                "id": place.id(self._namespace),
                "namespace": self._namespace,
                "automation": place.automation,
                "when_digest": place.when_digest,
                "key": place.key,
                "partition": lane.partition,
                "body": count.encode(window),
                "expires_at": count.expires_at(rules.trigger(place.automation), window),
            }
            for place, window in folded.windows.items()
            if window.matches
        ]
        if rows:
            insert = self._database.insert(state).values(updated=clock.now())
            fields = {name: insert.excluded[name] for name in ("body", "expires_at", "updated")}
            await connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=fields), rows)
        await self._save_origins(connection, lane.partition, batch.origins)

    async def _save_origins(self, connection: AsyncConnection, partition: int, origins: dict[Origin, int]) -> None:
        rows = [
            {"partition": partition, "origin_topic": topic, "origin_partition": number, "origin_offset": offset}
            for (topic, number), offset in origins.items()
        ]
        insert = self._database.insert(origin)
        keys = ["partition", "origin_topic", "origin_partition"]
        fields = {"origin_offset": insert.excluded.origin_offset}
        await connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=fields), rows)

    async def _save_clocks(self, connection: AsyncConnection, partition: int, clocks: dict[Origin, Instant]) -> None:
        rows = [
            {"partition": partition, "origin_topic": topic, "origin_partition": number, "at": at}
            for (topic, number), at in clocks.items()
        ]
        if rows:
            insert = self._database.insert(progress)
            keys = ["partition", "origin_topic", "origin_partition"]
            changed = insert.on_conflict_do_update(index_elements=keys, set_={"at": insert.excluded["at"]})
            await connection.execute(changed, rows)

    def _late(self, folded: Folded) -> list[Outgoing]:
        return [late_event(self._namespace, automation, match) for automation, match in folded.late]


def read_batches(memory: Memory, records: Sequence[Record]) -> list[Batch]:
    """Decode, drop what has been applied already, and cut where the revision changes.

    Raises msgspec.MsgspecError, InvalidEventError for garbage.
    """
    batches = [Batch()]
    origins = dict(memory.origins)
    for record in records:
        found = decode_match(record.value)
        source = (found.topic, found.partition)
        fresh = bool(found.matched) and found.offset > origins.get(source, -1)
        if fresh and batches[-1].revision not in (0, found.revision):
            batches.append(Batch())
        batch = batches[-1]
        batch.end = record.offset + 1
        batch.clocks |= {(each.topic, each.partition): each.at for each in found.progress}
        if fresh:
            origins[source] = batch.origins[source] = found.offset
            batch.revision = found.revision
            body = bytes(found.event)
            batch.matches.append(Match(decode(body), body, found.arrival, found.matched))
    return batches


def identity(envelope: Envelope) -> bytes:
    """16 bytes for (source, id)."""
    raw = msgspec.msgpack.encode(envelope.key)
    return blake2b(raw, digest_size=16).digest()


def late_event(namespace: str, automation: str, match: Match) -> Outgoing:
    """`penstock.event.late`: an event that took part in no window of this automation."""
    envelope = match.envelope
    return system_event(
        "penstock.event.late",
        subject=automation,
        at=match.arrival,
        namespace=namespace,
        event_id=derived_id(namespace, "late", automation, envelope.source, envelope.id),
        causationid=envelope.id,
        correlationid=envelope.correlationid or envelope.id,
        data={"automation": automation, "source": envelope.source, "id": envelope.id, "type": envelope.type},
    )


def _made(rules: Compiled, folded: Folded) -> list[Made]:
    return [Made(rules.automations[place.automation], place.key, decided) for place, decided in folded.decided]


def _triggers(rules: Compiled) -> Callable[[Place], count.EventTrigger | None]:
    def trigger_of(place: Place) -> count.EventTrigger | None:
        automation = rules.automations.get(place.automation)
        return automation.trigger if automation and automation.when_digest == place.when_digest else None

    return trigger_of
