"""Stage two: reads `penstock.matches`, holds the states of all rules with a memory, and decides.

One transaction per partition and batch: position, origins, identities seen, states, decisions, firings, outbox. Timers
ring by the partition's clock, in transactions of their own: the clock passes a deadline only when every event that
arrived before it has been read and committed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import bus
from penstock.events.bus import Outgoing, Record
from penstock.events.errors import PositionLostError
from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database.late import Part, Writes, at_the_end
from penstock.services.database.prepared import inserting
from penstock.services.database.records import publish_later, system_event
from penstock.services.database.tables import origin, progress, seen
from penstock.services.engine.batches import Batch, Origin, identity, later, read_batches
from penstock.services.engine.compiled import Compiled, CompiledRules
from penstock.services.engine.correlation import NEVER, Fold, Folded, Kept, Match, Place, places
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.dispatch import Made
from penstock.services.engine.effects import wall_clock
from penstock.services.engine.ownership import Lane, Ownership, advance_position, commit_at_once, hold
from penstock.services.engine.relay import Relay
from penstock.services.engine.stage_one import dead_letter_of, tell_gap
from penstock.services.engine.states import DUE, States, TooManyDueError

_log = structlog.get_logger()
_IDENTITIES = 24 * 3600 * 1_000_000  # microseconds for which a repeated (source, id) is recognised
_IMMINENT = 3_000_000  # microseconds to the next timer from which on progress is told more often
_HURRY_AGAIN = 1.0  # seconds between hints that it should be
_SLICE = 600_000_000  # microseconds of the stream's time whose timers ring in one transaction
_SETTLE = 10.0  # seconds after which a position moves although there was nothing but progress

_remember = inserting(seen, "partition", "digest", "at", ignore=True)
_remember_new = inserting(seen, "partition", "digest", "at", ignore=True, returning=("digest",))
_sources = ("partition", "origin_topic", "origin_partition")
_apply = inserting(origin, *_sources, "origin_offset", changing=("origin_offset",))
_tell = inserting(progress, *_sources, "at", changing=("at",))


@dataclass(slots=True)
class Memory:
    """What a match partition's owner keeps in memory, as committed."""

    origins: dict[Origin, int] = field(default_factory=dict)
    clocks: dict[Origin, Instant] = field(default_factory=dict)
    stored: dict[Origin, Instant] = field(default_factory=dict)  # the clocks as committed
    settled: float = 0.0
    due: Instant = NEVER  # no state must be looked at before
    rung: Instant = 0  # the clock up to which all timers have been rung
    loaded: int = -1  # the revision whose schedules and watches run


class StageTwo:
    """The stage over `penstock.matches`."""

    def __init__(
        self, context: Context, ownership: Ownership, rules: CompiledRules, decisions: Decisions, relay: Relay
    ) -> None:
        self._context, self._ownership, self._rules = context, ownership, rules
        self._decisions, self._relay = decisions, relay
        self._database = context.database
        self._namespace = context.settings.namespace
        self._states = States(self._namespace)
        self._memory: dict[Lane, Memory] = {}
        self._hurried = 0.0

    async def taken(self, lane: Lane) -> None:
        """Load how far each source partition has been applied here, and how far it had been read."""
        memory = Memory(settled=time.monotonic())
        async with self._database.read() as connection:
            memory.due = await self._states.next_due(connection, lane.partition)
            for row in await connection.execute(sa.select(origin).where(origin.c.partition == lane.partition)):
                memory.origins[row.origin_topic, row.origin_partition] = row.origin_offset
            for row in await connection.execute(sa.select(progress).where(progress.c.partition == lane.partition)):
                memory.clocks[row.origin_topic, row.origin_partition] = row.at
        memory.stored = dict(memory.clocks)
        # Others that were lost meanwhile may still be in hand: they are dropped when they are taken again.
        self._memory = {each: kept for each, kept in self._memory.items() if each.key != lane.key}
        self._memory[lane] = memory

    async def handle(self, lane: Lane, records: Sequence[Record]) -> None:
        """Take new matches into their states, ring what is due, and commit.

        Timers ring where the clock on the topic makes them due, not where a batch happens to end: where a key's events
        come from several source partitions, what waits behind a deadline depends on it. All that fits goes into one
        transaction; what is rare (another revision, a gap, very many timers at once) has transactions of its own.
        """
        memory = self._memory[lane]
        batches = read_batches(memory.origins, records)
        while batches:
            taken = await self._take_together(lane, batches)
            if not taken:
                await self._take(lane, batches[0])
            batches = batches[taken or 1 :]
        await self._load_new(lane)
        await self._ring_due(lane)
        if memory.due - self._clock(memory) < _IMMINENT:
            await self._hurry()

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
        """Store the position and the clock; forget identities that the clock has left behind."""
        if lane.read == lane.position:
            return
        memory = self._memory[lane]
        async with self._database.begin() as connection:
            await advance_position(connection, lane, to=lane.read)
            at_the_end(connection, _tell, _of_sources(lane.partition, memory.clocks, "at"))
            forgotten = (seen.c.partition == lane.partition) & (seen.c.at < self._clock(memory) - _IDENTITIES)
            await connection.execute(sa.delete(seen).where(forgotten))
        lane.position = lane.read
        memory.settled, memory.stored = time.monotonic(), dict(memory.clocks)

    async def gap(self, lane: Lane, lost: PositionLostError) -> None:
        """Go on from the oldest record left, and say what is missing; no absence may fire across it."""
        await self._lose(lane, wall_clock())
        await tell_gap(self._context, lane, lost)

    async def _take(self, lane: Lane, batch: Batch) -> None:
        """One batch, a transaction for each thing that it asks for."""
        memory = self._memory[lane]
        if batch.lost_until:
            await self._lose(lane, batch.lost_until)
        if batch.matches:
            await self._load_new(lane, batch.revision)  # first: what an event begins would not be begun again
            await self._ring_due(lane)
            await self._decide(lane, batch)
        lane.read = batch.end  # not before: what is cut off here must be read again
        memory.origins |= batch.origins
        memory.clocks = later(memory.clocks, batch)

    async def _take_together(self, lane: Lane, batches: Sequence[Batch]) -> int:
        """As many batches as one transaction can take, with the timers before, between and after them.

        Returns how many: 0 where something about the first one is out of the ordinary.
        """
        memory, rules = self._memory[lane], await self._newest(lane)
        ordinary = takewhile(lambda each: not each.lost_until and each.revision in (0, rules.revision), batches)
        taken = list(ordinary)
        if not any(each.matches for each in taken):
            return 0
        if memory.loaded < rules.revision or memory.due <= self._clock(memory):
            return 0
        try:
            await self._decide_together(lane, rules, taken)
        except TooManyDueError:
            return 0
        return len(taken)

    async def _decide_together(self, lane: Lane, rules: Compiled, batches: Sequence[Batch]) -> None:
        memory = self._memory[lane]
        clocks, end = memory.clocks, batches[-1].end
        origins: dict[Origin, int] = {}
        for batch in batches:
            clocks, origins = later(clocks, batch), origins | batch.origins
        final = self._clock_of(clocks)
        if final - memory.due > _SLICE:
            raise TooManyDueError
        # Read before the transaction: the partition is ours, so nobody else writes any of it; the commit proves that.
        async with self._database.read() as connection:
            touched = places((match for batch in batches for match in batch.matches), rules.automation)
            first = _by_identity(batches)
            found = await self._states.begin(connection, lane.partition, touched, list(first), final)
            fold = Fold(found.states, rules.automation)
            fresh = _fresh(batches, first, found.known)
            at, rung = memory.clocks, memory.rung
            for batch, matches in zip(batches, fresh, strict=True):
                if batch.matches:
                    clock = self._clock_of(at)
                    await self._ring_within(connection, fold, found.due, clock, rung)
                    rung = clock
                    fold.feed(matches, clock)
                at = later(at, batch)
            await self._ring_within(connection, fold, found.due, final, rung)
        told = _of_sources(lane.partition, dict(clocks.items() - memory.stored.items()), "at")
        more = [
            (_remember, _identities(lane.partition, fresh)),
            (_apply, _of_sources(lane.partition, origins, "origin_offset")),
            (_tell, told),
        ]
        hints = await self._write(lane, rules, fold.folded, more, to=end)
        memory.clocks, memory.stored, memory.origins = clocks, dict(clocks), memory.origins | origins
        memory.due, memory.rung, memory.settled = found.further, final, time.monotonic()
        lane.position, lane.read, lane.revision = end, end, rules.revision
        self._committed(memory, fold.folded, hints)

    async def _ring_within(
        self, connection: AsyncConnection, fold: Fold, stored: Mapping[Place, Kept], clock: Instant, rung: Instant
    ) -> None:
        """Ring what is due in a batch that has a transaction already: of its own states, and of those in the table."""
        kept = fold.folded.kept
        new = {place: each.state for place, each in stored.items() if each.due <= clock and not fold.knows(place)}
        fold.learn(new)
        due = [*(place for place, each in kept.items() if each.due <= clock), *new]
        due += [place for place, each in stored.items() if each.due <= clock and place not in kept and place not in new]
        if due:
            passed = fold.tick([place for place in due if place.deduped], clock)
            missing = [place for place, _ in passed if not fold.knows(place)]
            fold.learn(await self._states.load(connection, missing))
            fold.pass_on(passed, rung)
            keys = dict.fromkeys([*(place for place in due if not place.deduped), *(place for place, _ in passed)])
            fold.tick(keys, clock)

    async def _decide(self, lane: Lane, batch: Batch) -> None:
        rules = await self._rules.get(batch.revision)
        memory = self._memory[lane]
        async with self._database.begin() as connection:
            await advance_position(connection, lane, to=batch.end, revision=batch.revision)
            first = _by_identity([batch])
            rows = [{"partition": lane.partition, "digest": each, "at": match.arrival} for each, match in first.items()]
            new = {bytes(row["digest"]) for row in await _remember_new.many(connection, rows)}
            (fresh,) = _fresh([batch], first, first.keys() - new)
            states = await self._states.load(connection, places(fresh, rules.automation))
            fold = Fold(states, rules.automation)
            fold.feed(fresh, self._clock(memory))
            hints = await self._commit(connection, lane, rules, fold.folded)
            at_the_end(connection, _apply, _of_sources(lane.partition, batch.origins, "origin_offset"))
            clocks = later(memory.clocks, batch)  # whoever goes on from this position goes on by this clock
            told = dict(clocks.items() - memory.stored.items())
            at_the_end(connection, _tell, _of_sources(lane.partition, told, "at"))
        memory.stored = clocks
        lane.position, lane.revision = batch.end, batch.revision
        memory.settled = time.monotonic()
        self._committed(memory, fold.folded, hints)

    async def _ring_due(self, lane: Lane) -> None:
        """Ring all timers that the clock has passed."""
        memory = self._memory[lane]
        while memory.due <= self._clock(memory):
            await self._ring(lane)

    async def _ring(self, lane: Lane) -> None:
        """One transaction of timers: `dedupe` first, whose held events then go to their keys before these are rung."""
        memory, rules = self._memory[lane], await self._newest(lane)
        # After a long outage in slices, so that no schedule has more to do than fits into a transaction.
        clock = min(self._clock(memory), memory.due + _SLICE)
        async with self._database.read() as connection:
            due = await self._states.due(connection, lane.partition, clock)
            fold = Fold(due, rules.automation)
            passed = fold.tick([place for place in due if place.deduped], clock)
            missing = [place for place, _ in passed if not fold.knows(place)]
            fold.learn(await self._states.load(connection, missing))
            fold.pass_on(passed, memory.rung)
            touched = {place for place, _ in passed}
            fold.tick([*(place for place in due if not place.deduped and place not in touched), *touched], clock)
            all_rung = len(due) < DUE
            further = await self._states.next_due(connection, lane.partition, after=clock) if all_rung else memory.due
        hints = await self._write(lane, rules, fold.folded)
        memory.due = further
        self._committed(memory, fold.folded, hints)
        if all_rung:
            memory.rung = clock

    async def _lose(self, lane: Lane, until: Instant) -> None:
        """Events that arrived before were lost unread: what waits for their absence begins anew."""
        rules, after = await self._newest(lane), ""
        while True:
            async with self._database.begin() as connection:
                await hold(connection, lane)
                some = await self._states.of_rules(connection, lane.partition, rules.watching, after)
                fold = Fold(some, rules.automation)
                fold.lose(some, until)
                hints = await self._commit(connection, lane, rules, fold.folded)
            self._committed(self._memory[lane], fold.folded, hints)
            if len(some) < DUE:
                return
            after = max(place.id(self._namespace) for place in some)

    async def _load_new(self, lane: Lane, named: int = 0) -> None:
        """Begin the schedules and watches of rules that were put in force and live here.

        named: the revision of matches that are about to be taken in; it may be newer than what we have heard of.
        """
        memory, rules = self._memory[lane], await self._newest(lane, named)
        if memory.loaded >= rules.revision:
            return
        wanted = rules.loaded_in(lane.partition)
        async with self._database.begin() as connection:
            await hold(connection, lane)
            await self._states.forget(connection, lane.partition, rules.meanings)
            if wanted:
                there = await self._states.load(connection, [place for _, place in wanted])
                fold = Fold(there, rules.automation)
                for automation, place in wanted:
                    if place not in there:
                        fold.load(automation, place, rules.applied)
                hints = await self._commit(connection, lane, rules, fold.folded)
        if wanted:
            self._committed(memory, fold.folded, hints)
        memory.loaded = rules.revision

    async def _newest(self, lane: Lane, named: int = 0) -> Compiled:
        """What timers go by: the revision in force; or one that another engine knows already, and its matches name."""
        rules, known = self._rules.now, max(lane.revision, named)
        return rules if rules.revision >= known else await self._rules.get(known)

    async def _write(
        self, lane: Lane, rules: Compiled, folded: Folded, more: Sequence[Part] = (), to: int | None = None
    ) -> frozenset[str]:
        """Commit what was worked out from what was read before, if the partition is still ours as it was then.

        more: further rows.  to: where the position goes; None to leave it.  Raises StaleEpochError.
        """
        writes = Writes()
        hints = self._decisions.leave(writes, lane, rules, _made(rules, folded))
        if hints is not None:
            self._leave(writes, lane, rules, folded, more)
            try:
                await commit_at_once(self._database, lane, writes, to=to, revision=rules.revision)
            except IntegrityError:  # one of the decisions is there already
                pass
            else:
                return hints
        async with self._database.begin() as connection:
            if to is None:
                await hold(connection, lane)
            else:
                await advance_position(connection, lane, to=to, revision=rules.revision)
            hints = await self._decisions.write(connection, lane, rules, _made(rules, folded))
            self._leave(connection, lane, rules, folded, more)
        return hints

    def _leave(
        self, target: AsyncConnection | Writes, lane: Lane, rules: Compiled, folded: Folded, more: Sequence[Part] = ()
    ) -> None:
        """States, and what is told, for the end of the transaction."""
        permanent = frozenset(place for _, place in rules.loaded_in(lane.partition))
        self._states.save(target, lane.partition, folded.kept, permanent)
        publish_later(target, lane.name, self._late(folded))
        for statement, rows in more:
            at_the_end(target, statement, rows)

    async def _commit(self, connection: AsyncConnection, lane: Lane, rules: Compiled, folded: Folded) -> frozenset[str]:
        """States, decisions, and what is told, within the transaction."""
        hints = await self._decisions.write(connection, lane, rules, _made(rules, folded))
        self._leave(connection, lane, rules, folded)
        return hints

    def _committed(self, memory: Memory, folded: Folded, hints: frozenset[str]) -> None:
        memory.due = min([memory.due, *(each.due for each in folded.kept.values())])
        if folded.decided or folded.late:
            self._relay.wake(hints)

    async def _hurry(self) -> None:
        """Somewhere a timer is about to be due: whoever reads events tells its progress more often."""
        if time.monotonic() - self._hurried >= _HURRY_AGAIN:
            self._hurried = time.monotonic()
            await self._context.hints.give(hint.TIMERS)

    def _clock(self, memory: Memory) -> Instant:
        return self._clock_of(memory.clocks)

    def _clock_of(self, clocks: Mapping[Origin, Instant]) -> Instant:
        """Every event that arrived at or before it has been read here; 0 while a source has never told its progress."""
        sources = {(name, n) for name in (bus.EVENTS, bus.SYSTEM) for n in range(self._ownership.partitions(name))}
        if not sources or not sources <= clocks.keys():
            return 0
        return min(clocks[source] for source in sources) - 1

    def _late(self, folded: Folded) -> list[Outgoing]:
        return [late_event(self._namespace, automation, match) for automation, match in folded.late]


def _by_identity(batches: Sequence[Batch]) -> dict[bytes, Match]:
    """The first match of each (source, id)."""
    first: dict[bytes, Match] = {}
    for match in (match for batch in batches for match in batch.matches):
        first.setdefault(identity(match.envelope), match)
    return first


def _fresh(batches: Sequence[Batch], first: Mapping[bytes, Match], known: Set[bytes]) -> list[list[Match]]:
    """The matches of each batch that are the first of an identity that is not known."""
    fresh = {id(match) for digest, match in first.items() if digest not in known}
    return [[match for match in batch.matches if id(match) in fresh] for batch in batches]


def _identities(partition: int, fresh: Sequence[Sequence[Match]]) -> list[dict[str, Any]]:
    """To be recognised when they come again."""
    matches = (match for each in fresh for match in each)
    return [{"partition": partition, "digest": identity(each.envelope), "at": each.arrival} for each in matches]


def _of_sources(partition: int, values: Mapping[Origin, int], name: str) -> list[dict[str, Any]]:
    """One row for each source partition."""
    return [dict(zip((*_sources, name), (partition, *each, value), strict=True)) for each, value in values.items()]


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
    return [Made(rules.automations[each.automation], each) for each in folded.decided]
