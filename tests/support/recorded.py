"""What one engine decides that reads the recorded match topic: folded here in one go, or by an engine of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.support.rig import Rig

from penstock.events import bus
from penstock.events.bus import Outgoing, Record
from penstock.services.database import tables
from penstock.services.engine.batches import identity, read_batches
from penstock.services.engine.compiled import CompiledRules
from penstock.services.engine.correlation import Fold, Match
from penstock.services.engine.match_records import decode

Decisions = dict[str, tuple[str, Any, frozenset[str]]]  # id: (automation, key, ids of events)


async def decided(rig: Rig) -> Decisions:
    """What stands in the database."""
    rows = await rig.rows(tables.decision)
    return {row.id: (row.automation, json.loads(row.key), frozenset(json.loads(row.events))) for row in rows}


async def folded(rig: Rig, records: Iterable[Record]) -> Decisions:
    """The pure core over each partition's records from the first to the last, in one go."""
    rules = await CompiledRules(rig.context.rulebook).current()
    found: Decisions = {}
    for partition in by_partition(records).values():
        fresh: dict[bytes, Match] = {}
        for batch in read_batches({}, partition):
            for match in batch.matches:
                fresh.setdefault(identity(match.envelope), match)
        fold = Fold({}, rules.automation)
        fold.feed(fresh.values(), 0)
        for each in fold.folded.decided:
            found[each.id] = (each.automation, each.key_value, frozenset(each.events))
    return found


async def decided_by_one_engine(rig: Rig, records: Iterable[Record]) -> Decisions:
    """What a real engine decides that is given a copy of the records. rig: empty, with the same rules."""
    publisher = await rig.context.bus.publisher()
    await rig.context.bus.ensure_topic(bus.MATCHES, bus.MATCH_PARTITIONS)
    copies = [Outgoing(topic=bus.MATCHES, partition=each.partition, value=each.value) for each in records]
    await publisher.publish(copies)
    await publisher.close()
    await rig.start_engine()
    await all_decided(rig, copies_of=await rig.records(bus.MATCHES))
    return await decided(rig)


async def all_decided(rig: Rig, *, copies_of: Iterable[Record]) -> None:
    """Until the last match of each partition lies behind the stored position."""
    ends = {number: last_match(records) for number, records in by_partition(copies_of).items()}

    async def reached() -> bool:
        rows = await rig.rows(tables.position, tables.position.c.topic == bus.MATCHES)
        return all(row.position > ends.get(row.partition, -1) or ends.get(row.partition, -1) < 0 for row in rows)

    await rig.until(reached, what="the stored positions to pass the last matches")


def by_partition(records: Iterable[Record]) -> dict[int, list[Record]]:
    """The records of each partition in order."""
    found: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda each: (each.partition, each.offset)):
        found.setdefault(record.partition, []).append(record)
    return found


def last_match(records: Iterable[Record]) -> int:
    """The offset of the last record that is more than progress; -1 where there is none."""
    return max((record.offset for record in records if decode(record.value).matched), default=-1)
