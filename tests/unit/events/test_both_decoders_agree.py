"""`Event` (pydantic) and `Envelope` (msgspec) accept and refuse the same bytes, and give the same values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.events.errors import InvalidEventError
from penstock.events.event import MAX_DEPTH, Envelope, Event, decode, from_mapping, parse

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_TIMES = st.sampled_from(
    [
        "2026-03-01T10:00:00Z", "2026-03-01t10:00:00z", "2026-03-01 10:00:00Z", "2026-03-01T10:00:00",
        "2026-03-01T10:00:00.1234567+02:00", "2026-03-01T10:00:00.1234567890Z", "2026-03-01T10:00Z",
        "2026-03-01T10:00:00+0200", "2026-03-01T23:59:60Z", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
        "2026-03-01T10:00:00+24:00", "2026-03-01T10:00:00-00:00", "２026-03-01T10:00:00Z", "", "now",
        "2026-03-01T10:00:00.9999999Z", "2026-03-01T24:00:00Z", "2026-03-01T10:00:00,5Z",
    ]
)  # fmt: skip
_TEXTS = st.text(max_size=5) | st.sampled_from(["a\0b", "x" * 1024, "x" * 1025, "é" * 1024, "😀" * 1024, "😀" * 1025])
_EXTENSIONS = st.sampled_from(["x", "x1", "X", "under_score", "data_base64", "dash-ed", "", "é", "y" * 64, "y" * 65])
_ATTRIBUTES = {
    "specversion": st.sampled_from(["1.0", "0.3", "1", 1.0, None]),
    "id": _TEXTS | _VALUES,
    "source": _TEXTS | _VALUES,
    "type": _TEXTS | _VALUES,
    "subject": _TEXTS | _VALUES,
    "time": _TIMES | _VALUES,
    "datacontenttype": _TEXTS | _VALUES,
    "dataschema": _TEXTS | _VALUES,
    "data": _VALUES,
    "data_base64": st.sampled_from(["", "YQ==", "YQ", "Y Q==", "YWJj", "é", 1, None]),
    "partitionkey": _TEXTS | _VALUES,
    "correlationid": _TEXTS | _VALUES,
    "causationid": _TEXTS | _VALUES,
    "traceparent": _TEXTS | _VALUES,
    "hops": st.integers(-1, 1001) | st.sampled_from([True, 1.0, "1", None, 2**70]),
}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON objects that are events, or nearly."""
    mapping: dict[str, Any] = {"id": "1", "source": "/s", "type": "a.b"}
    for name in draw(st.lists(st.sampled_from(sorted(_ATTRIBUTES)), max_size=3, unique=True)):
        mapping[name] = draw(_ATTRIBUTES[name])
    for name in draw(st.lists(_EXTENSIONS, max_size=2, unique=True)):
        mapping.setdefault(name, draw(_VALUES | st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1])))
    if draw(st.booleans()):
        mapping.pop(draw(st.sampled_from(["id", "source", "type"])))
    return json.dumps(mapping, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Such a body with bytes changed: no longer JSON, perhaps, or no longer UTF-8."""
    body = bytearray(draw(bodies()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + 1] = draw(st.binary(max_size=2) | st.sampled_from([b'"', b"{", b"1e999", b"\\ud800", b","]))
        if not body:
            break
    return bytes(body)


def _outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except InvalidEventError:
        return None


def _agree(body: bytes) -> None:
    envelope, event = _outcome(decode, body), _outcome(parse, body)
    assert (envelope is None) == (event is None)
    if envelope is None:
        return
    for name in Envelope.__struct_fields__:
        if name != "data":
            assert getattr(envelope, name) == getattr(event, name), name
    assert msgspec.json.decode(envelope.data) == event.data
    assert (envelope.key, envelope.ordering_key) == (event.key, event.ordering_key)


@given(bodies())
@settings(max_examples=600)
def test_both_decoders_agree_on_bodies(body: bytes) -> None:
    _agree(body)


@given(spoiled())
@settings(max_examples=400)
def test_both_decoders_agree_on_spoiled_bodies(body: bytes) -> None:
    _agree(body)


@given(bodies())
@settings(max_examples=300)
def test_the_pydantic_model_alone_refuses_what_the_struct_refuses(body: bytes) -> None:
    try:
        mapping = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert (_outcome(decode, body) is None) == (_outcome(from_mapping, mapping) is None)


@given(bodies())
@settings(max_examples=300)
def test_what_was_read_is_written_so_that_it_reads_the_same(body: bytes) -> None:
    event = _outcome(parse, body)
    if event is not None:
        again = parse(event.to_json())
        assert again.model_dump(exclude_none=True) == event.model_dump(exclude_none=True)
        _agree(event.to_json())


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        (b',"id":""', "id"),
        (b',"time":"2026-03-01"', "time"),
        (b',"hops":-1', "hops"),
        (b',"big":2147483648', "big"),
        (b',"Upper":1', "Upper"),
        (b',"data_base64":"?"', "data_base64"),
        (b',"data":1,"data_base64":"YQ=="', "data_base64"),
        (b',"data":"\\u0000"', "data"),
    ],
)
def test_a_refusal_names_the_attribute_at_fault(extra: bytes, field: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        decode(b'{"id":"1","source":"/s","type":"t"' + extra + b"}")
    assert refused.value.field == field


@pytest.mark.parametrize("read", [decode, parse])
@pytest.mark.parametrize(
    "extra",
    [b',"data":NaN', b',"data":Infinity', b',"data":1e400', b',"data":"\\ud800"', b',"subject":"\\udc00"',
     b',"data":"\xff"', b',"data":"\x00"'],
)  # fmt: skip
def test_what_is_no_json_is_refused(read: Any, extra: bytes) -> None:
    with pytest.raises(InvalidEventError):
        read(b'{"id":"1","source":"/s","type":"t"' + extra + b"}")


@pytest.mark.parametrize("read", [decode, parse])
def test_nesting_is_bounded_whatever_the_stack(read: Any) -> None:
    def body(depth: int) -> bytes:
        return b'{"id":"1","source":"/s","type":"t","data":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    read(body(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidEventError, match="nested"):
            read(body(depth))


@pytest.mark.parametrize("read", [decode, parse])
def test_brackets_inside_texts_are_no_nesting(read: Any) -> None:
    texts = json.dumps(['[{"\\' * 400, "[" * 400])
    read(b'{"id":"1","source":"/s","type":"t","data":' + texts.encode() + b"}")


def test_an_attribute_given_twice_must_be_valid_twice_and_the_last_one_counts() -> None:
    body = b'{"id":"1","id":"2","source":"/s","type":"t"}'
    assert decode(body).id == parse(body).id == "2"
    for read in (decode, parse):
        with pytest.raises(InvalidEventError):
            read(b'{"id":7,"id":"2","source":"/s","type":"t"}')


def test_a_whole_number_of_any_size_survives_in_data() -> None:
    event = parse(b'{"id":"1","source":"/s","type":"t","data":123456789012345678901234567890}')
    assert b"123456789012345678901234567890" in event.to_json()


@pytest.mark.parametrize("data", [float("nan"), {"a": float("inf")}, "\ud800", object(), {"b": b"\xff"}, "\x00"])
def test_data_that_json_cannot_say_is_refused_and_never_changed(data: Any) -> None:
    with pytest.raises(InvalidEventError):
        Event(type="a.b", data=data).to_json()
