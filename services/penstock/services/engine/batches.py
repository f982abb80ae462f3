"""What stage two reads: match records as batches, each with the clock that it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from penstock.events.bus import Record
from penstock.events.event import Envelope, decode_again
from penstock.events.instants import Instant
from penstock.services.engine.correlation import Match
from penstock.services.engine.match_records import decode as decode_match

Origin = tuple[str, int]  # a source partition


@dataclass(slots=True)
class Batch:
    """A batch, decoded: the matches that are new, and the origins and clocks after it."""

    matches: list[Match] = field(default_factory=list)
    revision: int = 0  # 0: none of the records needs one
    end: int = 0  # the position after it
    lost_until: Instant = 0  # before its first match: events that arrived before this were lost
    origins: dict[Origin, int] = field(default_factory=dict)
    clocks: dict[Origin, Instant] = field(default_factory=dict)


def later(clocks: Mapping[Origin, Instant], batch: Batch) -> dict[Origin, Instant]:
    """The clocks after a batch. Whoever takes a partition over tells again what was told: none runs back."""
    moved = {source: at for source, at in batch.clocks.items() if at > clocks.get(source, 0)}
    return {**clocks, **moved}


def read_batches(applied: Mapping[Origin, int], records: Sequence[Record]) -> list[Batch]:
    """Decode, drop what has been applied already, and cut where the revision changes, and after progress.

    applied: the highest offset of each source partition that has been applied.
    Raises msgspec.MsgspecError, InvalidEventError for garbage.
    """
    batches = [Batch()]
    origins = dict(applied)
    for record in records:
        found = decode_match(record.value)
        source = (found.topic, found.partition)
        fresh = bool(found.matched) and found.offset > origins.get(source, -1)
        before = batches[-1]
        if found.gaps or (fresh and (before.clocks or before.revision not in (0, found.revision))):
            batches.append(Batch(lost_until=max((each.at for each in found.gaps), default=0)))
        batch = batches[-1]
        batch.end = record.offset + 1
        for each in found.progress:
            known = batch.clocks.get((each.topic, each.partition), 0)
            batch.clocks[each.topic, each.partition] = max(each.at, known)
        if fresh:
            origins[source] = batch.origins[source] = found.offset
            batch.revision = found.revision
            body = bytes(found.event)
            batch.matches.append(Match(decode_again(body), body, found.arrival, found.matched))
    return batches


def identity(envelope: Envelope) -> bytes:
    """16 bytes for (source, id)."""
    raw = msgspec.msgpack.encode(envelope.key)
    return blake2b(raw, digest_size=16).digest()
