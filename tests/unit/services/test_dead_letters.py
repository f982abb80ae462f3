"""The shape of a dead letter, and what can be had back from it."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.events.bus import DEAD_LETTER
from penstock.events.event import MAX_BODY
from penstock.services.dead_letters import Origin, dead_letter, headers_of, key_of, stack_of, value_of

HEADERS = st.lists(st.tuples(st.text(), st.binary(max_size=50)), max_size=4).map(tuple)


@given(st.binary(max_size=500), st.none() | st.binary(max_size=50), HEADERS)
def test_any_bytes_come_back_as_they_were(
    value: bytes, key: bytes | None, headers: tuple[tuple[str, bytes], ...]
) -> None:
    record = dead_letter("why", Origin("t", 1, 2), value=value, key=key, headers=headers, at=0)
    letter = json.loads(record.value)
    assert (value_of(letter), key_of(letter), headers_of(letter)) == (value, key, headers)


def test_the_same_record_has_the_same_id_however_often_it_is_buried() -> None:
    first = json.loads(dead_letter("why", Origin("t", 1, 2), value=b"x", at=0).value)
    again = json.loads(dead_letter("other", Origin("t", 1, 2), value=b"x", at=9).value)
    other = json.loads(dead_letter("why", Origin("t", 1, 3), value=b"x", at=0).value)
    assert first["id"] == again["id"] != other["id"]


def test_a_body_above_a_mebibyte_is_told_by_its_digest_and_length() -> None:
    body = b"x" * (MAX_BODY + 1)
    letter = json.loads(dead_letter("too large", Origin("t"), value=body).value)
    assert letter["value"] == {"sha256": hashlib.sha256(body).hexdigest(), "length": MAX_BODY + 1}
    assert value_of(letter) is None
    assert value_of(json.loads(dead_letter("fits", Origin("t"), value=body[:-1]).value)) == body[:-1]


def test_it_says_why_and_where_from() -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        record = dead_letter("why", Origin("t", automation="a", firing="f"), value=b"x", stack=stack_of(error), at=0)
    letter = json.loads(record.value)
    assert record.topic == DEAD_LETTER
    assert letter["origin"] == {"topic": "t", "automation": "a", "firing": "f"}
    assert (letter["reason"], letter["at"], letter["v"]) == ("why", "1970-01-01T00:00:00Z", 1)
    assert "ValueError: bad" in letter["stack"]
