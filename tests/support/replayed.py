"""What the pure core decides over the recorded match topic, one record after the other, with the clock it tells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.recorded import by_partition
from tests.support.rig import Rig

from penstock.events import bus
from penstock.events.bus import Record
from penstock.events.instants import Instant
from penstock.services.database import tables
from penstock.services.engine.batches import identity, read_batches
from penstock.services.engine.compiled import Compiled, CompiledRules
from penstock.services.engine.correlation import Fold, Place
from penstock.services.engine.match_records import decode
from penstock.services.engine.stage_two import Memory
from penstock.services.engine.suppressions import MINUTE
from penstock.triggers import simulate
from penstock.triggers.decisions import Decision

Told = tuple[str, Instant, str, str, tuple[str, ...]]  # automation, at, kind, key, ids of events
Source = tuple[str, int]


@dataclass
class Came:
    """Decisions by id; and how many were suppressed, by automation, key, stage and minute."""

    decisions: dict[str, Told] = field(default_factory=dict)
    suppressed: Counter[tuple[str, str, str, Instant]] = field(default_factory=Counter)

    def take(self, decisions: Iterable[Decision]) -> Came:
        """Add what the core decided."""
        for each in decisions:
            if each.kind == "suppressed":
                self.suppressed[each.automation, each.key, each.reason.partition(":")[0], each.at // MINUTE] += 1
            else:
                self.decisions[each.id] = (each.automation, each.at, each.kind, each.key, tuple(each.events))
        return self

    def of(self, prefix: str, until: Instant) -> Came:
        """Of the automations with this prefix alone, up to an instant."""
        decisions = {id_: it for id_, it in self.decisions.items() if it[0].startswith(prefix) and it[1] <= until}
        held = {it: n for it, n in self.suppressed.items() if it[0].startswith(prefix) and it[3] <= until // MINUTE}
        return Came(decisions, Counter(held))

    def without(self, prefix: str) -> Came:
        """Of all other automations."""
        decisions = {id_: it for id_, it in self.decisions.items() if not it[0].startswith(prefix)}
        return Came(decisions, Counter({it: n for it, n in self.suppressed.items() if not it[0].startswith(prefix)}))

    def beside(self, other: Came) -> dict[str, list[object]]:
        """What only this one has, and what only the other one; {} where they agree."""
        mine, theirs = self.decisions.items(), other.decisions.items()
        held, there = self.suppressed, other.suppressed
        found: dict[str, list[object]] = {
            "only here": [*sorted(each[1] for each in mine - theirs), *sorted((held - there).items())],
            "only there": [*sorted(each[1] for each in theirs - mine), *sorted((there - held).items())],
        }
        return {name: them for name, them in found.items() if them}


async def stored(rig: Rig) -> Came:
    """What the engines have decided, as the database has it."""
    came = Came()
    for row in await rig.rows(tables.decision):
        came.decisions[row.id] = (row.automation, row.at, row.kind, row.key, tuple(json.loads(row.events)))
    for row in await rig.rows(tables.suppression):
        came.suppressed[row.automation, row.key, row.stage, row.minute // MINUTE] += row.count
    return came


async def replayed(rig: Rig, end: Instant) -> Came:
    """The core over the whole match topic, once the clock of each of its partitions has passed `end`."""
    rules = await CompiledRules(rig.context.rulebook).current()
    sources: set[Source] = set()
    for name in (bus.EVENTS, bus.SYSTEM):
        topic = await rig.context.bus.topic(name)
        assert topic is not None
        sources |= {(name, number) for number in range(topic.partitions)}

    async def all_told() -> Came | None:
        records = by_partition(await rig.records(bus.MATCHES))
        partitions = [_Partition(rules, number, sources) for number in range(bus.MATCH_PARTITIONS)]
        decided = [each.over(records.get(number, [])) for number, each in enumerate(partitions)]
        if any(each.clock < end for each in partitions):
            return None
        return Came().take(each for some in decided for each in some)

    found: Came = await rig.until(all_told, what="the clock of every match partition to pass the end")
    return found


async def caught_up(rig: Rig, core: Came) -> Came:
    """What the engines have decided, once there is nothing that the core has decided and they have not."""

    async def all_there() -> Came | None:
        live = await stored(rig)
        return None if "only there" in live.beside(core) else live

    try:
        found: Came = await rig.until(all_there, within=30, what="what the core decides")
    except AssertionError:
        found = await stored(rig)
    return found


def simulated(rig: Rig, events: Iterable[dict[str, object]], until: Instant) -> Came:
    """What `penstock rules simulate` says of the rules in force."""
    return Came().take(simulate(rig.context.rulebook.current.rules, events, until))


class _Partition:
    """One match partition, folded record by record."""

    def __init__(self, rules: Compiled, number: int, sources: set[Source]) -> None:
        self._fold = Fold({}, rules.automation)
        self._memory = Memory()
        self._sources = sources
        self.clock: Instant = 0
        self._seen: set[bytes] = set()
        for automation, place in rules.loaded_in(number):
            self._fold.load(automation, place, rules.applied)

    def over(self, records: Iterable[Record]) -> list[Decision]:
        """All decisions."""
        for record in records:
            for batch in read_batches(self._memory.origins, [record]):
                fresh = [match for match in batch.matches if identity(match.envelope) not in self._seen]
                self._seen |= {identity(match.envelope) for match in fresh}
                self._fold.feed(fresh, self.clock)
                self._memory.origins |= batch.origins
            for told in decode(record.value).progress:
                source = (told.topic, told.partition)
                self._memory.clocks[source] = max(told.at, self._memory.clocks.get(source, 0))
            self._ring()
        return self._fold.folded.decided

    def _ring(self) -> None:
        if not self._sources <= self._memory.clocks.keys():
            return
        before, self.clock = self.clock, min(self._memory.clocks[source] for source in self._sources) - 1
        while due := [place for place, kept in self._fold.folded.kept.items() if kept.due <= self.clock]:
            passed = self._fold.tick([place for place in due if place.deduped], self.clock)
            self._fold.pass_on(passed, before)
            touched: dict[Place, None] = dict.fromkeys(place for place, _ in passed)
            plain = dict.fromkeys(place for place in due if not place.deduped)
            self._fold.tick([*plain, *(place for place in touched if place not in plain)], self.clock)
