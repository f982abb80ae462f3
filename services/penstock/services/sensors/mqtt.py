"""Messages of an MQTT broker. One is acknowledged to the broker only once our bus has it.

The session is kept by the broker under a client id that stays the same, so what was not acknowledged comes again, and
what arrives while nobody listens waits there (as much as the broker keeps). QoS 2 is taken as 1: its handshake lets a
message go before our bus has it, and a repeat is told apart by its identity below.

Identity of an event: the template `id`, where the user has one: the best there is. Else derived from sensor, topic,
payload, and
- for a retained message, nothing more: the broker shows the same one at each connection;
- for others, the broker's message number (MQTT numbers 1 to 65535 come round again) and the minute of arrival. A
  message that comes again on the next connection of this process is recognised whenever it comes; one that comes
  again after a crash, within its minute.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import msgspec
import structlog
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from penstock.automations.resources import MqttSensor
from penstock.automations.secrets import Lookup
from penstock.automations.templates import RenderError, render_json
from penstock.events.errors import InvalidEventError, PenstockError
from penstock.events.event import Event, from_mapping, now
from penstock.events.ids import derived_id, new_id
from penstock.events.sensors import Reading, Refused

_KEEPALIVE = 15  # seconds
_REFUSED = 0x80  # in the answer to a subscription, from here on
_log = structlog.get_logger()


class MqttRefusedError(PenstockError):
    """The broker does not let us subscribe."""


class Message(aiomqtt.Message):
    """With the flag that aiomqtt leaves out: whether the broker has sent it before."""

    dup: bool = False


class LateAckClient(aiomqtt.Client):
    """aiomqtt's client with paho's manual acknowledgement, which it does not hand on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._client.manual_ack_set(True)

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that it may forget the message; without a connection nothing is told."""
        self._client.ack(message.mid, message.qos)

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        found = Message(message.topic, bytes(message.payload), message.qos, message.retain, message.mid, None)
        found.dup = message.dup
        self._queue.put_nowait(found)  # unbounded here: the broker sends no more than it may have in flight


class MqttDriver:
    """One subscription."""

    def __init__(self, key: tuple[str, str], sensor: MqttSensor, secrets: Lookup) -> None:
        self._sensor, self._secrets = sensor, secrets
        self._client_id = "penstock-" + "-".join(key)
        self._identities = Identities(f"{key[0]}/{key[1]}")

    async def readings(self) -> AsyncGenerator[Reading | Refused, None]:
        """See Driver.  Raises aiomqtt.MqttError when the connection is lost, MqttRefusedError."""
        async with self._connect() as client:
            self._identities.begin_connection()
            for topic in self._sensor.topics:
                granted = await client.subscribe(topic, qos=min(self._sensor.qos, 1))
                if any((code.value if isinstance(code, ReasonCode) else code) >= _REFUSED for code in granted):
                    raise MqttRefusedError(f"the broker refuses a subscription to {topic!r}; see its access rules")
            _log.info("mqtt.connected", sensor=self._sensor.name, topics=list(self._sensor.topics))
            async for message in client.messages:
                assert isinstance(message, Message)  # noqa: S101 -- our client makes no others
                if any(message.topic.matches(topic) for topic in self._sensor.topics):
                    yield self._observed(client, message)
                else:
                    client.acknowledge(message)  # of a subscription that the sensor had before its topics changed

    def _connect(self) -> LateAckClient:
        url, sensor = urlsplit(self._sensor.url), self._sensor
        secure = url.scheme in ("mqtts", "ssl", "tls")
        return LateAckClient(
            url.hostname or "localhost",
            url.port or (8883 if secure else 1883),
            username=sensor.username.clear(self._secrets) if sensor.username else None,
            password=sensor.password.clear(self._secrets) if sensor.password else None,
            identifier=self._client_id,
            clean_session=False,
            keepalive=_KEEPALIVE,
            tls_context=ssl.create_default_context() if secure else None,
        )

    def _observed(self, client: LateAckClient, message: Message) -> Reading | Refused:
        identity = self._identities.of(message)

        async def acknowledge() -> None:
            self._identities.forget(message)
            client.acknowledge(message)

        try:
            event = to_event(self._sensor, message.topic.value, bytes(message.payload), identity)
            event.to_json()  # refused here, it is dead-lettered as the payload that came
            return Reading(event, acknowledge)
        except (InvalidEventError, RenderError) as error:
            reason = f"{type(error).__name__}: {error}"
            return Refused(reason, f"mqtt/{message.topic.value}", bytes(message.payload), acknowledge)


class Identities:
    """Which messages are the same one, sent again."""

    def __init__(self, sensor: str) -> None:
        self._sensor = sensor
        self._waiting: dict[int, tuple[bytes, str]] = {}  # by number: digest, identity; not yet acknowledged
        self._before: dict[int, tuple[bytes, str]] = {}  # the same of earlier connections
        self._minute, self._given = 0, dict[str, int]()

    def begin_connection(self) -> None:
        """What was not acknowledged on the last one will come again."""
        self._before |= self._waiting
        self._waiting = {}

    def of(self, message: Message, minute: int | None = None) -> str:
        """The identity of a message.  minute: of its arrival, since the epoch; None: now."""
        minute = int(now().timestamp()) // 60 if minute is None else minute
        content = hashlib.sha256(message.topic.value.encode() + b"\x00" + bytes(message.payload))
        if message.retain:
            return derived_id("mqtt", self._sensor, content.hexdigest(), "retained")
        if message.qos == 0:
            return new_id()  # the broker sends it once
        known = self._before.pop(message.mid, None)
        if message.dup and known is not None and known[0] == content.digest():
            identity = known[1]
        else:
            plain = derived_id("mqtt", self._sensor, content.hexdigest(), str(message.mid), str(minute))
            identity = plain if message.dup else self._ordinal(plain, minute)
        self._waiting[message.mid] = content.digest(), identity
        return identity

    def forget(self, message: Message) -> None:
        """It is acknowledged: its number is free for another one."""
        self._waiting.pop(message.mid, None)

    def _ordinal(self, name: str, minute: int) -> str:
        """The name, and for a second one in the same minute another: a new message is never taken for an old one."""
        if minute != self._minute:
            self._minute, self._given = minute, {}
        count = self._given[name] = self._given.get(name, 0) + 1
        return name if count == 1 else derived_id(name, str(count))


def to_event(sensor: MqttSensor, topic: str, payload: bytes, identity: str) -> Event:
    """The event of a message.  Raises InvalidEventError, RenderError."""
    body = read_payload(payload)
    variables = {"body": body, "topic": topic}
    wanted = {name: getattr(sensor.event, name) for name in ("type", "id", "source", "subject", "time")}
    texts = {name: template.text(variables) for name, template in wanted.items() if template is not None}
    mapping: dict[str, Any] = {"id": identity, "source": f"/sensors/{sensor.name}", **texts}
    for name in ("subject", "time"):
        if mapping.get(name) == "":
            del mapping[name]
    mapping.setdefault("time", now())
    data = sensor.event.data
    mapping["data"] = (body if isinstance(body, Mapping) else {"value": body}) if data is None else render_json(
        data, variables
    )  # fmt: skip
    return from_mapping(mapping)


def read_payload(payload: bytes) -> Any:
    """A JSON value, else the text, else {"base64": …}; `data` is it, or `data.value` where it is no JSON object."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        pass  # no JSON: most small devices send plain text
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}
