"""Dead letters are read from the end of their topic, on both buses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.events.bus import DEAD_LETTER, Bus, Record
from penstock.services.api import letters
from penstock.services.api.letters import decode_letter, find, format_cursor, newest, parse_cursor
from penstock.services.bus import connect
from penstock.services.dead_letters import Origin, dead_letter, value_of

COUNT = 700
PARTITIONS = 3


@pytest.fixture
async def bus(any_bus_url: str) -> AsyncIterator[Bus]:
    found = await connect(any_bus_url)
    await found.ensure_topic(DEAD_LETTER, PARTITIONS)
    publisher = await found.publisher()
    for start in range(0, COUNT, 70):  # several bursts: on Redis offsets are times
        await publisher.publish([letter(number) for number in range(start, start + 70)])
    await publisher.close()
    yield found
    await found.close()


def letter(number: int) -> Any:
    namespace = "other" if number % 7 == 0 else "default"
    return dead_letter("broken", Origin("t", 0, number), value=b"%d" % number, namespace=namespace)


async def test_pages_give_every_letter_once_and_in_order_of_its_partition(bus: Bus) -> None:
    found: list[letters.Entry] = []
    before = None
    while before != {}:
        page = await newest(bus, "default", 50, before)
        assert len(page.entries) == 50 or not page.before
        found, cursor = found + page.entries, format_cursor(page.before)
        before = parse_cursor(cursor) if cursor else {}
    numbers = [each.letter["origin"]["offset"] for each in found]
    assert sorted(numbers) == [number for number in range(COUNT) if number % 7]
    for partition in range(PARTITIONS):
        offsets = [each.offset for each in found if each.partition == partition]
        assert offsets == sorted(offsets, reverse=True)


async def test_a_page_reads_only_the_end(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Record] = []

    def brief(record: Record) -> letters.Entry:
        read.append(record)
        return letters.Entry(record.partition, record.offset, record.appended_at, decode_letter(record.value))

    monkeypatch.setattr(letters, "_brief", brief)
    page = await newest(bus, "default", 5)
    assert len(page.entries) == 5
    assert max(each.letter["origin"]["offset"] for each in page.entries) >= COUNT - 70
    assert len(set(read)) < COUNT / 2


async def test_one_is_found_whole_however_old_it_is(bus: Bus) -> None:
    page = await newest(bus, "default", 1_000)
    for entry in (page.entries[0], page.entries[-1]):
        whole = await find(bus, "default", entry.letter["id"])
        assert whole is not None
        assert value_of(whole) == b"%d" % entry.letter["origin"]["offset"]
    assert await find(bus, "default", "none") is None
    assert await find(bus, "other", page.entries[0].letter["id"]) is None
