"""Stage one: reads events, matches them against the rules, and keeps no state.

A rule that one event decides is decided here. For a rule with windows it writes one record per (event, match partition)
to `penstock.matches`, in order and acknowledged, and only then stores its position: a crash between the two writes the
same records again, and stage two drops them by their origin.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from penstock.automations import Automation
from penstock.events import bus
from penstock.events.bus import Outgoing, Publisher, Reader, Record
from penstock.events.codec import from_record
from penstock.events.errors import InvalidEventError, PositionLostError
from penstock.events.event import RESERVED_PREFIX, Envelope
from penstock.events.instants import Instant
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database.late import Writes
from penstock.services.database.records import publish_later, system_event
from penstock.services.dead_letters import Origin, dead_letter
from penstock.services.engine.compiled import Compiled, CompiledRules, decides_alone
from penstock.services.engine.correlation import by_of, home
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.dispatch import Made
from penstock.services.engine.effects import wall_clock
from penstock.services.engine.match_records import Matched, MatchRecord, Progress, gap_to_all, outgoing, progress_to_all
from penstock.services.engine.ownership import Lane, Ownership, advance_position, commit_at_once
from penstock.services.engine.relay import Relay
from penstock.services.engine.revisions import change_revision
from penstock.services.engine.waits import Waits
from penstock.triggers.evidence import Evidence
from penstock.triggers.forms import leaves as leaves_of
from penstock.triggers.keys import key_of
from penstock.triggers.machine import decide_alone

_log = structlog.get_logger()
_SETTLE = 1.0  # seconds after which a position moves although nothing was decided
_PROGRESS = 1.0  # seconds between progress records
_HURRIED = 0.1  # seconds, while somewhere a timer is about to be due
_HURRY = 3.0  # seconds for which a hint that one is holds


@dataclass(slots=True)
class Outcome:
    """What a batch of events comes to."""

    made: list[Made] = field(default_factory=list)
    matches: list[Outgoing] = field(default_factory=list)
    refused: list[Outgoing] = field(default_factory=list)  # dead letters

    @property
    def must_commit(self) -> bool:
        """Whether there is more to store than a position."""
        return bool(self.made or self.refused)


class StageOne:
    """The stage over `penstock.events` and `penstock.system`."""

    def __init__(
        self,
        context: Context,
        ownership: Ownership,
        rules: CompiledRules,
        decisions: Decisions,
        relay: Relay,
        waits: Waits,
    ) -> None:
        self._context, self._ownership, self._rules, self._waits = context, ownership, rules, waits
        self._decisions, self._relay = decisions, relay
        self._database = context.database
        self._namespace = context.settings.namespace
        self._publisher: Publisher | None = None
        self._connecting = asyncio.Lock()
        self._settled: dict[Lane, float] = {}
        self._hurried_until = 0.0
        self._reached: dict[Lane, Instant] = {}  # the append time of the last record handled
        self._told = 0.0

    async def taken(self, lane: Lane) -> None:
        """The stage is stateless; but runs may wait for what comes here."""
        await self._waits.taken(lane)

    async def handle(self, lane: Lane, records: Sequence[Record]) -> None:
        """Match, forward, decide, commit."""
        if found := self._waits.match(lane, records):
            await self._waits.keep(found)  # before the position moves past them
        rules = await change_revision(self._database, self._rules, lane, await self._rules.current())
        outcome = match(rules, self._namespace, records)
        if outcome.matches:
            await (await self._connected()).publish(outcome.matches)
        end = records[-1].offset + 1
        if outcome.must_commit:
            await self._commit(lane, rules, outcome, to=end)
        lane.read = end  # not before: what is cut off here must be read again
        self._reached[lane] = max(self._reached.get(lane, 0), records[-1].appended_at)

    async def bury(self, lane: Lane, record: Record, reason: str, stack: str) -> None:
        """Commit past one record, with a dead letter."""
        outcome = Outcome(refused=[dead_letter_of(record, reason, self._namespace, stack)])
        await self._commit(lane, await self._rules.get(lane.revision), outcome, to=record.offset + 1)

    def overdue(self, lane: Lane) -> bool:
        """Once a second."""
        return time.monotonic() - self._settled.setdefault(lane, 0.0) >= _SETTLE

    async def settle(self, lane: Lane) -> None:
        """Store how far we have read."""
        if lane.read != lane.position:
            await self._commit(lane, await self._rules.get(lane.revision), Outcome(), to=lane.read)

    async def gap(self, lane: Lane, lost: PositionLostError) -> None:
        """Go on from the oldest record left, and say what is missing.

        The states are told first: no absence may fire across it.
        """
        told = Progress(lane.topic, lane.partition, await self._oldest(lane, lost.found))
        await (await self._connected()).publish(gap_to_all(told, bus.MATCH_PARTITIONS))
        await tell_gap(self._context, lane, lost)

    async def _oldest(self, lane: Lane, position: int) -> Instant:
        """When the record at this position arrived; now, where there is none.  Raises BusError."""
        reader = self._context.bus.reader()
        try:
            await reader.take(lane.key, position)
            batches = await reader.poll(max_records=1, timeout=1.0)
        finally:
            await reader.close()
        records = batches.get(lane.key, ())
        return records[0].appended_at if records else wall_clock()

    async def each_round(self, reader: Reader) -> None:
        """Tell every match partition how far each of ours has been read.  Raises BusError."""
        every = _HURRIED if time.monotonic() < self._hurried_until else _PROGRESS
        if time.monotonic() - self._told >= every:
            self._told = time.monotonic()
            await self._tell_progress(reader)

    async def follow_timers(self) -> None:
        """Tell progress more often while some engine has a timer that is about to be due; until cancelled."""
        while True:
            if await self._context.hints.wait(hint.TIMERS, timeout=60.0):
                self._hurried_until = time.monotonic() + _HURRY

    async def close(self) -> None:
        """Let go of the publisher."""
        if self._publisher is not None:
            await self._publisher.close()

    async def _commit(self, lane: Lane, rules: Compiled, outcome: Outcome, *, to: int) -> None:
        hints = await self._write_at_once(lane, rules, outcome, to)
        if hints is None:
            async with self._database.begin() as connection:
                await advance_position(connection, lane, to=to)
                hints = await self._decisions.write(connection, lane, rules, outcome.made)
                publish_later(connection, lane.name, outcome.refused)
        lane.position = lane.read = to
        self._settled[lane] = time.monotonic()
        if outcome.must_commit:
            self._relay.wake(hints)

    async def _write_at_once(self, lane: Lane, rules: Compiled, outcome: Outcome, to: int) -> frozenset[str] | None:
        """The same in one statement; None where it depends on rows that are there already."""
        writes = Writes()
        hints = self._decisions.leave(writes, lane, rules, outcome.made)
        if hints is None:
            return None
        publish_later(writes, lane.name, outcome.refused)
        try:
            await commit_at_once(self._database, lane, writes, to=to)
        except IntegrityError:  # a second copy of an event, most likely: its decision is made
            return None
        return hints

    async def _tell_progress(self, reader: Reader) -> None:
        ends = await reader.ends()
        told = []
        for lane in self._lanes():
            at_the_end = lane.key in ends and ends[lane.key].position <= lane.read
            at = ends[lane.key].at if at_the_end else self._reached.get(lane, 0)
            told += [Progress(lane.topic, lane.partition, at)] if at else []
        if told:
            await (await self._connected()).publish(progress_to_all(told, bus.MATCH_PARTITIONS))

    async def _connected(self) -> Publisher:
        async with self._connecting:
            if self._publisher is None:
                self._publisher = await self._context.bus.publisher()
        return self._publisher

    def _lanes(self) -> list[Lane]:
        return [*self._ownership.lanes(bus.EVENTS), *self._ownership.lanes(bus.SYSTEM)]


def match(rules: Compiled, namespace: str, records: Sequence[Record]) -> Outcome:
    """What the events of one partition come to under one revision.  Pure."""
    outcome = Outcome()
    for record in records:
        try:
            body, envelope = from_record(record.headers, record.value)
            if record.topic == bus.EVENTS and envelope.type.startswith(RESERVED_PREFIX):
                raise InvalidEventError(f"{envelope.type!r} is reserved for Penstock's own services", field="type")  # noqa: TRY301 -- one place that refuses
        except InvalidEventError as error:
            outcome.refused.append(dead_letter_of(record, f"InvalidEventError: {error}", namespace))
            continue
        hits = rules.matching(body)
        if hits:
            _take_in(rules, namespace, outcome, record, body, envelope, hits)
    return outcome


def _take_in(
    rules: Compiled,
    namespace: str,
    outcome: Outcome,
    record: Record,
    body: bytes,
    envelope: Envelope,
    hits: dict[str, list[int]],
) -> None:
    mapping = msgspec.json.decode(body)
    windows: dict[int, list[Matched]] = defaultdict(list)
    for name, numbers in hits.items():
        automation = rules.automations[name]
        for key, leaves in _keys(automation, mapping, numbers).items():
            if decides_alone(automation):
                evidence = Evidence(envelope.at(record.appended_at), envelope.source, envelope.id, body)
                decision = decide_alone(automation.rule, key, evidence, record.appended_at)
                outcome.made += [Made(automation, decision)] if decision is not None else []
            else:
                matched = Matched(name, automation.when_digest, key, leaves, by_of(automation, mapping))
                windows[home(automation, key, bus.MATCH_PARTITIONS)].append(matched)
    for partition, to_partition in windows.items():
        found = MatchRecord(
            namespace=namespace,
            revision=rules.revision,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            arrival=record.appended_at,
            event=msgspec.Raw(body),
            matched=tuple(to_partition),
        )
        outcome.matches.append(outgoing(found, partition))


def _keys(automation: Automation, mapping: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The event's keys for the leaves that it matches."""
    places = leaves_of(automation.rule)
    found: dict[str, tuple[int, ...]] = {}
    for number in numbers:
        key = key_of(mapping, places[number].per)
        found[key] = (*found.get(key, ()), number)
    return found


def dead_letter_of(record: Record, reason: str, namespace: str, stack: str = "") -> Outgoing:
    """The dead letter of a record as it was read."""
    origin = Origin(record.topic, record.partition, record.offset)
    return dead_letter(
        reason,
        origin,
        value=record.value,
        key=record.key,
        headers=record.headers,
        stack=stack,
        namespace=namespace,
    )


async def tell_gap(context: Context, lane: Lane, lost: PositionLostError) -> None:
    """Move the position to the oldest record left, and raise `penstock.engine.gap` with both offsets."""
    _log.error("engine.gap", partition=lane.name, wanted=lost.wanted, found=lost.found)
    event = system_event(
        "penstock.engine.gap",
        subject=lane.name,
        at=time.time_ns() // 1_000,
        namespace=context.settings.namespace,
        data={"topic": lost.topic, "partition": lost.partition, "wanted": lost.wanted, "found": lost.found},
    )
    async with context.database.begin() as connection:
        await advance_position(connection, lane, to=lost.found)
        publish_later(connection, lane.name, [event])
    lane.position = lane.read = lost.found
