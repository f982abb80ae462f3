"""MQTT messages as events, and which of them are the same one sent again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.automations import load_texts
from penstock.automations.resources import MqttSensor
from penstock.events.errors import InvalidEventError
from penstock.events.event import parse
from penstock.services.sensors.mqtt import Identities, Message, to_event


def sensor(event: str = "type: sensor.temperature, subject: '{{ topic }}'") -> MqttSensor:
    text = f"sensors: [{{name: plant, driver: mqtt, url: 'mqtt://h', topics: ['#'], event: {{{event}}}}}]"
    found = load_texts({"f.yaml": text}).require().sensors["default", "plant"]
    assert isinstance(found, MqttSensor)
    return found


def message(mid: int, payload: bytes = b"20.0", *, dup: bool = False, retain: bool = False, qos: int = 1) -> Message:
    found = Message("plant/7/temp", payload, qos, retain, mid, None)
    found.dup = dup
    return found


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b'{"celsius": 9.5}', {"celsius": 9.5}),
        (b"21.5", {"value": 21.5}),
        (b"[1, 2]", {"value": [1, 2]}),
        (b"warm", {"value": "warm"}),
        ("21,5 °C".encode(), {"value": "21,5 °C"}),
        (b"", {"value": ""}),
        (b"\xff\x00", {"base64": base64.b64encode(b"\xff\x00").decode()}),
        (b'{"a": 1', {"value": '{"a": 1'}),
    ],
)
def test_a_payload_becomes_data_whatever_it_is(payload: bytes, data: Any) -> None:
    event = to_event(sensor(), "plant/7/temp", payload, "id-1")
    assert (event.type, event.subject, event.id) == ("sensor.temperature", "plant/7/temp", "id-1")
    assert event.source == "/sensors/plant"
    assert event.data == data
    assert event.time is not None


def test_templates_see_topic_and_body() -> None:
    found = sensor("type: a.b, id: '{{ body.id }}', time: '{{ body.at }}', data: {c: '{{ body.c }}', t: '{{ topic }}'}")
    payload = json.dumps({"id": 7, "at": "2026-03-01T10:00:00Z", "c": 9.5}).encode()
    event = to_event(found, "x/y", payload, "unused")
    assert event.id == "7"
    assert event.time is not None
    assert event.time.isoformat() == "2026-03-01T10:00:00+00:00"
    assert event.data == {"c": 9.5, "t": "x/y"}


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidEventError) as refused:
        to_event(sensor("type: a.b, time: '{{ body.at }}'"), "t", b'{"at": "noon"}', "1")
    assert refused.value.field == "time"


@given(st.binary(max_size=60))
def test_no_payload_breaks_anything(payload: bytes) -> None:
    try:
        body = to_event(sensor(), "t", payload, "1").to_json()
    except InvalidEventError:
        return  # the character NUL, say
    assert parse(body).id == "1"


def test_equal_readings_are_different_events() -> None:
    identities = Identities("default/plant")
    found = []
    for mid in (1, 2, 1, 1):  # the numbers come round again
        found.append(identities.of(message(mid), minute=5))
        identities.forget(message(mid))
    found.append(identities.of(message(1), minute=6))
    assert len(set(found)) == 5


def test_what_comes_again_on_the_next_connection_is_the_same_event() -> None:
    identities = Identities("default/plant")
    first, second = (identities.of(message(mid), minute=5) for mid in (1, 2))
    identities.forget(message(2))
    identities.begin_connection()
    assert identities.of(message(1, dup=True), minute=90) == first
    assert identities.of(message(2), minute=90) != second


def test_a_number_that_is_used_again_is_no_repeat() -> None:
    identities = Identities("default/plant")
    first = identities.of(message(1), minute=5)
    identities.begin_connection()
    assert identities.of(message(1, b"another", dup=True), minute=5) != first
    identities.begin_connection()
    assert identities.of(message(1), minute=5) != first


def test_what_comes_again_after_a_crash_is_the_same_event_within_its_minute() -> None:
    before = Identities("default/plant").of(message(7), minute=5)
    assert Identities("default/plant").of(message(7, dup=True), minute=5) == before
    assert Identities("default/other").of(message(7, dup=True), minute=5) != before


def test_a_retained_message_is_one_event_however_often_it_is_shown() -> None:
    first, again = (Identities("default/plant").of(message(mid, retain=True)) for mid in (1, 9))
    assert first == again
    assert Identities("default/plant").of(message(1, b"21", retain=True)) != first


def test_messages_of_qos_0_are_never_the_same() -> None:
    identities = Identities("default/plant")
    assert len({identities.of(message(0, qos=0)) for _ in range(10)}) == 10
