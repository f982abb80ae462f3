"""Offsets of Redis streams are integers that order as the entries do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.errors import BusError
from penstock.services.bus.redis_streams import (
    SEQUENCE_BITS,
    StoredTopic,
    before,
    mark,
    to_entry,
    to_entry_id,
    to_offset,
    to_record,
)

PARTITION = TopicPartition("penstock.test", 0)
IN_2240 = 8_520_336_000_000  # milliseconds
entry_ids = st.tuples(st.integers(0, IN_2240), st.integers(0, (1 << SEQUENCE_BITS) - 1))
offsets = st.integers(0, (1 << 63) - 1)


def text(entry_id: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry_id


@given(entry_ids, entry_ids)
def test_offsets_order_as_entries_do(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (to_offset(text(one)) < to_offset(text(other))) == (one < other)


@given(entry_ids)
def test_an_offset_names_its_entry_and_fits_a_signed_column(entry_id: tuple[int, int]) -> None:
    offset = to_offset(text(entry_id))
    assert to_entry_id(offset) == text(entry_id).decode()
    assert 0 <= offset < 1 << 63


@given(offsets.filter(bool), entry_ids)
def test_reading_begins_at_the_position_itself(position: int, entry_id: tuple[int, int]) -> None:
    milliseconds, sequence = map(int, before(position).split("-"))
    assert (entry_id > (milliseconds, sequence)) == (to_offset(text(entry_id)) >= position)


@given(offsets, offsets)
def test_marks_order_as_text_as_positions_do(one: int, other: int) -> None:
    assert (mark(one) < mark(other)) == (one < other)
    assert int(mark(one)) == one


def test_a_sequence_beyond_the_width_is_refused_rather_than_misread() -> None:
    with pytest.raises(BusError, match="clock"):
        to_offset(b"5-%d" % (1 << SEQUENCE_BITS))


@given(
    st.binary(),
    st.none() | st.binary(),
    st.lists(st.tuples(st.text(), st.binary())).map(tuple),
    st.none() | st.integers(0, 1 << 62),
)
def test_an_entry_gives_back_its_record(
    value: bytes, key: bytes | None, headers: tuple[tuple[str, bytes], ...], stamp: int | None
) -> None:
    sent = Outgoing("penstock.test", value, key, headers=headers, timestamp=stamp)
    entry = {name.encode(): as_redis_returns_it(content) for name, content in to_entry(sent, now=77).items()}
    record = to_record(PARTITION, b"1700000000000-3", entry)
    assert (record.value, record.key, record.headers) == (value, key, headers)
    assert record.appended_at == (77 if stamp is None else stamp)
    assert record.offset == 1700000000000 << SEQUENCE_BITS | 3


def as_redis_returns_it(content: bytes | int) -> bytes:
    return content if isinstance(content, bytes) else b"%d" % content


@given(st.dictionaries(st.sampled_from([b"value", b"key", b"headers", b"at", b"else"]), st.binary()))
def test_an_entry_that_somebody_else_wrote_is_read_all_the_same(fields: dict[bytes, bytes]) -> None:
    record = to_record(PARTITION, b"1700000000000-0", fields)
    assert record.value == fields.get(b"value", b"")


def test_a_stored_topic_comes_back_and_anything_else_is_refused() -> None:
    made = StoredTopic.new("penstock.test", 3, stamped_by_producer=True)
    assert StoredTopic.decode("penstock.test", made.encode()) == made
    for other in (b"", b"7", b"{}", b"\xff", b'{"id": "x"}'):
        with pytest.raises(BusError):
            StoredTopic.decode("penstock.test", other)
