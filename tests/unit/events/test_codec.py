"""CloudEvents in every mode of Kafka and HTTP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events.codec import STRUCTURED_HEADERS, from_http, from_record, outgoing
from penstock.events.errors import InvalidEventError
from penstock.events.event import Event

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": {"n": 1}}
BODY = json.dumps(EVENT).encode()
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "order.placed"}
KAFKA_CE = tuple((name.replace("-", "_", 1), value.encode()) for name, value in CE.items())


def body_of(headers: dict[str, str], body: bytes) -> Any:
    (found,) = from_http(headers, body)
    return json.loads(found.body)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        STRUCTURED_HEADERS,
        (("Content-Type", b"application/cloudevents+json; charset=UTF-8"),),
        (("trace", b"\xff"),),
        (("content-type", b"application/json"),),
    ],
)
def test_a_structured_record_is_read_as_it_lies(headers: tuple[tuple[str, bytes], ...]) -> None:
    body, envelope = from_record(headers, BODY)
    assert body == BODY
    assert envelope.type == "order.placed"


def test_a_binary_record_becomes_one_structured_body() -> None:
    headers = (
        *KAFKA_CE, ("content-type", b"application/json"), ("ce_subject", "Graz-Süd %41".encode()), ("ce_hops", b"2"),
    )  # fmt: skip
    body, envelope = from_record(headers, b'{"n":1}')
    assert json.loads(body) == {
        **EVENT, "datacontenttype": "application/json", "subject": "Graz-Süd %41", "hops": 2
    }  # fmt: skip
    assert envelope.hops == 2
    assert msgspec.json.decode(envelope.data) == {"n": 1}


@pytest.mark.parametrize(
    ("content_type", "payload", "expected"),
    [
        ("text/plain", b"hello", {"data": "hello"}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
        ("application/xml", b"<a/>", {"data": "<a/>"}),
        ("image/svg+xml", b"<a/>", {"data": "<a/>"}),
        ("application/octet-stream", b"hello", {"data_base64": "aGVsbG8="}),
        ("application/vnd.x+json; v=1", b"[1]", {"data": [1]}),
        ("application/json", b"null", {"data": None}),
        ("application/json", b"", {}),
    ],
)
def test_the_payload_of_binary_mode_becomes_what_its_type_says(
    content_type: str, payload: bytes, expected: dict[str, Any]
) -> None:
    for body in (
        json.loads(from_record((*KAFKA_CE, ("content-type", content_type.encode())), payload).body),
        body_of({**CE, "Content-Type": content_type}, payload),
    ):
        assert {name: body[name] for name in body if name.startswith("data") and name != "datacontenttype"} == expected


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((("content-type", b"application/cloudevents+avro"),), b"x"),
        ((("content-type", b"application/cloudevents-batch+json"),), b"[]"),
        ((("ce_id", b"1"),), b"{}"),
        ((*KAFKA_CE, ("content-type", b"application/json")), b"{"),
        ((*KAFKA_CE, ("ce_hops", b"x")), b"{}"),
        ((*KAFKA_CE, ("ce_data", b"x")), b"{}"),
        ((*KAFKA_CE, ("ce_subject", b"\xff")), b"{}"),
        ((*KAFKA_CE, ("ce_Bad-Name", b"x")), b"{}"),
        ((), b"not json"),
        ((), b""),
        ((), b"[]"),
    ],
)
def test_a_record_that_is_no_event_is_refused(headers: tuple[tuple[str, bytes], ...], value: bytes) -> None:
    with pytest.raises(InvalidEventError):
        from_record(headers, value)


@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/json; charset=utf-8", None])
def test_a_structured_request_is_one_event(content_type: str | None) -> None:
    assert body_of({"Content-Type": content_type} if content_type else {}, BODY) == EVENT


@pytest.mark.parametrize("content_type", ["application/cloudevents-batch+json", "application/json"])
def test_a_batch_is_several_events_and_may_be_empty(content_type: str) -> None:
    body = json.dumps([EVENT, {**EVENT, "id": "2"}]).encode()
    assert [found.envelope.id for found in from_http({"content-type": content_type}, body)] == ["1", "2"]
    assert from_http({"content-type": content_type}, b" []") == []


def test_a_batch_with_one_bad_event_is_refused_with_its_index() -> None:
    body = json.dumps([EVENT, {**EVENT, "id": ""}]).encode()
    with pytest.raises(InvalidEventError, match="event 1 of the batch: id") as refused:
        from_http({"content-type": "application/cloudevents-batch+json"}, body)
    assert (refused.value.index, refused.value.field) == (1, "id")


def test_headers_of_binary_mode_are_unquoted_and_percent_decoded() -> None:
    headers = {**CE, "CE-Subject": "Euro%20%E2%82%AC%20%F0%9F%98%80", "ce-ext": r'"a \"b\""'}
    found = body_of(headers, b"")
    assert (found["subject"], found["ext"]) == ("Euro € 😀", 'a "b"')


@pytest.mark.parametrize("subject", ["Süd", "%FF"])
def test_a_header_that_is_not_encoded_as_it_should_be_is_refused(subject: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        from_http({**CE, "ce-subject": subject}, b"")
    assert refused.value.field == "ce-subject"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "text/plain"}, BODY),
        ({"content-type": "application/cloudevents+xml"}, BODY),
        ({"content-type": "application/cloudevents-batch+json"}, BODY),
        ({"content-type": "application/cloudevents+json"}, b"[]"),
        ({**CE, "ce-specversion": "0.3"}, b""),
        ({"ce-type": "x"}, b""),
        ({}, b""),
        ({}, b"\xff"),
    ],
)
def test_a_request_without_an_event_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidEventError):
        from_http(headers, body)


def test_reserved_types_are_refused_in_every_mode() -> None:
    own = {**EVENT, "type": "penstock.run.completed"}
    for headers, body in [
        ({"content-type": "application/cloudevents+json"}, json.dumps(own)),
        ({"content-type": "application/cloudevents-batch+json"}, json.dumps([own])),
        ({"content-type": "application/json"}, json.dumps([EVENT, own])),
        ({**CE, "ce-type": own["type"]}, ""),
        ({}, json.dumps(own)[:-1] + ',"type":"penstock.x"}'),
    ]:
        with pytest.raises(InvalidEventError, match="reserved"):
            from_http(headers, body.encode())  # type: ignore[arg-type]  # one value is typed as object
    with pytest.raises(InvalidEventError, match="reserved"):
        outgoing(Event(type="penstock.run.completed"))


def test_a_type_that_hides_behind_a_second_one_is_published_as_it_was_judged() -> None:
    body = BODY[:-1] + b',"type":"other.thing"}'
    (found,) = from_http({}, body)
    assert found.body.count(b'"type"') == 1
    assert json.loads(found.body)["type"] == found.envelope.type == "other.thing"


_NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)
_SAFE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)


@given(subject=_SAFE, extensions=st.dictionaries(_NAMES.map("x".__add__), _SAFE, max_size=3), data=st.integers())
def test_structured_and_binary_mode_say_the_same(subject: str, extensions: dict[str, str], data: int) -> None:
    from urllib.parse import quote

    event = Event(type="a.b", id="1", source="/s", subject=subject, data=data, datacontenttype="application/json")
    event = event.model_copy(update=extensions)
    structured = from_record((), event.to_json())
    attributes = {"id": "1", "source": "/s", "type": "a.b", "subject": subject, **extensions}
    kafka = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
    http = {f"ce-{name}": quote(value, safe="") for name, value in attributes.items()}
    media = "application/json"
    for found in (
        from_record((*kafka, ("content-type", media.encode())), str(data).encode()),
        from_http({**http, "content-type": media}, str(data).encode())[0],
    ):
        assert json.loads(found.body) == json.loads(structured.body)


def test_an_event_is_published_structured_and_keyed_by_what_orders_it() -> None:
    record = outgoing(Event(type="a.b", subject="truck/7", source="/s"))
    assert (record.topic, record.key, record.headers) == ("penstock.events", b"truck/7", STRUCTURED_HEADERS)
    assert from_record(record.headers, record.value).envelope.subject == "truck/7"
