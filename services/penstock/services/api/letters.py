"""The dead letters as the bus holds them, newest first and a page at a time: their topic may be long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.events import bus
from penstock.events.bus import Bus, Record, TopicPartition
from penstock.events.instants import Instant

_POLL = 2.0  # seconds without a record after which the rest of a log is taken as empty
_BATCH = 50  # records read at once; each may have a megabyte
_MANY = 4  # pages of one partition are read at most in a try to find where its newest records begin
_LOOKED_AT = 10_000  # letters, of other namespaces among them, after which a page ends with what it has
_LONG = frozenset({"stack", "value", "key", "headers"})  # told of a single one only
_CURSOR = re.compile(r"\d{1,6}:\d{1,19}(,\d{1,6}:\d{1,19})*\Z")

Letter = dict[str, Any]
Ends = dict[int, int]  # by partition: the position below which to read


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter in brief, and where it lies."""

    partition: int
    offset: int
    appended_at: Instant
    letter: Letter


@dataclass(frozen=True, slots=True)
class Letters:
    """A page. before: the positions below which the next one lies; none: this was the last."""

    entries: list[Entry]
    before: Ends = field(default_factory=dict)


async def newest(port: Bus, namespace: str, limit: int, before: Mapping[int, int] | None = None) -> Letters:
    """The newest `limit` letters of a namespace, newest first.

    before: only what lies below these positions; none: from the end of the topic.
    """
    begins, ends = await _range(port, before or {})
    found: list[Entry] = []
    looked_at = 0
    while ends and len(found) < limit and looked_at < _LOOKED_AT:
        tails = {number: await _tail(port, number, begins[number], end, limit) for number, end in ends.items()}
        for entry in _merged(tails)[:limit]:
            looked_at += 1
            ends[entry.partition] = entry.offset
            found += [entry] if entry.letter.get("namespace", "default") == namespace else []
            if len(found) == limit:
                break
        ends = {number: end for number, end in ends.items() if _has_more(tails[number], begins[number], end, limit)}
    return Letters(found, ends)


async def find(port: Bus, namespace: str, id_: str) -> Letter | None:
    """One whole letter by its id, looked for from the newest back."""
    before: Ends | None = None
    while before != {}:
        page = await newest(port, namespace, 200, before)
        before = page.before
        for entry in page.entries:
            if entry.letter.get("id") == id_:
                return await _whole(port, entry)
    return None


def parse_cursor(text: str) -> Ends:
    """`0:17,1:4` as positions by partition.  Raises ValueError."""
    if not _CURSOR.match(text):
        raise ValueError(f"{text!r} is no place in the dead letters; copy what the page before ended with")
    return {int(number): int(end) for number, _, end in (part.partition(":") for part in text.split(","))}


def format_cursor(ends: Mapping[int, int]) -> str | None:
    """What `parse_cursor` reads; None: there is nothing more."""
    return ",".join(f"{number}:{end}" for number, end in sorted(ends.items())) or None


def decode_letter(value: bytes) -> Letter:
    """A dead letter; one that cannot be read itself is shown as such rather than hidden."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"id": "unreadable", "reason": "not a dead letter", "at": ""}


async def _range(port: Bus, before: Mapping[int, int]) -> tuple[Ends, Ends]:
    """Where each partition begins and ends now; a cursor names those that have more, the others are done."""
    topic = await port.topic(bus.DEAD_LETTER)
    begins, ends = {}, {}
    for number in range(topic.partitions if topic else 0):
        if before and number not in before:
            continue
        log = TopicPartition(bus.DEAD_LETTER, number)
        begins[number] = await port.beginning(log)
        ends[number] = min(before.get(number, 1 << 63), (await port.end(log)).position)
    return begins, {number: end for number, end in ends.items() if end > begins[number]}


async def _tail(port: Bus, number: int, first: int, end: int, wanted: int) -> list[Entry]:
    """The newest `wanted` records in [first, end), in their order; fewer where there are no more.

    Offsets need not be dense, so it is found out where they begin: further and further back, then in halves.
    """
    log = TopicPartition(bus.DEAD_LETTER, number)
    too_early: int | None = None
    too_late, start = end, max(first, end - wanted)
    while True:
        found = await _between(port, log, start, end, most=_MANY * wanted)
        if len(found) > _MANY * wanted:
            too_early = start
        elif len(found) >= wanted or start == first:
            return found[-wanted:]
        else:
            too_late = start
        start = max(first, end - 4 * (end - start)) if too_early is None else (too_early + too_late) // 2


def _has_more(tail: list[Entry], first: int, end: int, wanted: int) -> bool:
    """Whether something may lie in [first, end) where the newest `wanted` records of a partition are `tail`."""
    return end > first and (len(tail) >= wanted or (bool(tail) and tail[0].offset < end))


async def _between(port: Bus, log: TopicPartition, start: int, end: int, *, most: int) -> list[Entry]:
    """The records in [start, end); above `most` there may be more still."""
    reader = port.reader()
    found: list[Entry] = []
    try:
        await reader.take(log, start)
        while len(found) <= most:
            records = (await reader.poll(max_records=_BATCH, timeout=_POLL)).get(log, ())
            found += [_brief(record) for record in records if record.offset < end]
            if not records or records[-1].offset >= end - 1:  # the end may lie behind the last record
                break
    finally:
        await reader.close()
    return found


async def _whole(port: Bus, entry: Entry) -> Letter:
    reader = port.reader()
    try:
        log = TopicPartition(bus.DEAD_LETTER, entry.partition)
        await reader.take(log, entry.offset)
        records = (await reader.poll(max_records=1, timeout=_POLL)).get(log, ())
    finally:
        await reader.close()
    return decode_letter(records[0].value) if records else entry.letter


def _brief(record: Record) -> Entry:
    """A body may have a megabyte, and a page a thousand letters."""
    letter = {name: value for name, value in decode_letter(record.value).items() if name not in _LONG}
    return Entry(record.partition, record.offset, record.appended_at, letter)


def _merged(tails: Mapping[int, list[Entry]]) -> list[Entry]:
    """Newest first by time of appending; within a partition by offset."""
    left = {number: list(entries) for number, entries in tails.items() if entries}
    found: list[Entry] = []
    while left:
        number = max(left, key=lambda each: (left[each][-1].appended_at, -each))
        found.append(left[number].pop())
        if not left[number]:
            del left[number]
    return found
