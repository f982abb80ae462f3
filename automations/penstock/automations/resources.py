"""What stands beside rules in a file: users, groups, channels, webhooks, sensors, schedules, limits.

Each is a frozen value, checked by pydantic where it comes in, and used as it is afterwards.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from penstock.automations.compiling import compile_template
from penstock.automations.cron import check_cron
from penstock.automations.durations import Rate
from penstock.automations.models import SECOND, Duration, Keys, Names, Person, RateLimit, ResourceName, Text, listing
from penstock.automations.scopes import SECRETS_SCOPE, SENSOR_SCOPE, WEBHOOK_SCOPE, Scope
from penstock.automations.templates import Template, TemplateError
from penstock.automations.when import check_timezone

_USERINFO = re.compile(r"[^/]*//[^/?#]*@")


def _template(scope: Scope) -> Any:
    def compiled(value: Any) -> Template:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "Input should be a valid string")
        return _compiled(value, scope, ())

    return BeforeValidator(compiled)


def _tree(scope: Scope) -> Any:
    def compiled(value: Any, path: tuple[str | int, ...] = ()) -> Any:
        if isinstance(value, str):
            return _compiled(value, scope, path)
        if isinstance(value, dict):
            return {key: compiled(item, (*path, key)) for key, item in value.items()}
        return [compiled(item, (*path, at)) for at, item in enumerate(value)] if isinstance(value, list) else value

    return BeforeValidator(lambda value: compiled(value))


def _compiled(source: str, scope: Scope, path: tuple[str | int, ...]) -> Template:
    try:
        return compile_template(source, scope)
    except TemplateError as error:
        found = {"reason": error.reason, "hint": error.hint, "path": path}
        raise PydanticCustomError("template", "{reason}", found) from None


def _without_user(remedy: str) -> Any:
    """An address without a user or password in it: rule files are read by many, and kept in the database."""

    def checked(url: str) -> str:
        if _USERINFO.match(url):  # the message must not repeat it
            found = {"reason": "a user or password stands in this URL for everybody to read", "hint": remedy}
            raise PydanticCustomError("template", "{reason}", found)
        return url

    return AfterValidator(checked)


def _limited(rate: Rate | None) -> Rate | None:
    if rate is None:
        raise ValueError("a limit without a limit; write e.g. `10/1s`, or remove it")
    return rate


_SOURCE = [PlainSerializer(lambda template: template.source, return_type=str), WithJsonSchema({"type": "string"})]
SecretText = Annotated[Template, _template(SECRETS_SCOPE), *_SOURCE]
WebhookText = Annotated[Template, _template(WEBHOOK_SCOPE), *_SOURCE]
SensorText = Annotated[Template, _template(SENSOR_SCOPE), *_SOURCE]
WebhookData = Annotated[Any, _tree(WEBHOOK_SCOPE), WithJsonSchema({})]
SensorData = Annotated[Any, _tree(SENSOR_SCOPE), WithJsonSchema({})]
Url = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://.+$")]
ProviderUrl = Annotated[Url, _without_user("remove it; the channel is known by its `token`")]
BrokerUrl = Annotated[Url, _without_user("write `username:` and `password:` beside `url`, as `{{ secrets.NAME }}`")]


class TemplateKeys(Keys):
    """A mapping that holds compiled templates."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class Resource(TemplateKeys):
    """A named thing of a namespace."""

    name: ResourceName = Field(description="Unique among its kind in a namespace.")


class User(Resource):
    """A person."""

    email: Text | None = Field(None, description="For messages.")
    phone: Text | None = Field(None, description="In international form: `+4312345`.")
    slack: Text | None = Field(None, description="The member id in Slack.")


class Group(Resource):
    """Several people."""

    members: Annotated[
        tuple[Person, ...],
        BeforeValidator(listing),
        WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": "^user/.+$"}}),
    ] = Field(description="Who belongs to it: user/NAME.")


class Slack(TemplateKeys):
    """A channel of Slack, written to with a bot token."""

    channel: Text = Field(description="`#name`, or the id of a channel.")
    token: SecretText = Field(description="The token of the bot: `{{ secrets.NAME }}`.")


class Sms(TemplateKeys):
    """Text messages. `to`: user/NAME, or a number in international form."""

    provider: Literal["twilio"] = Field("twilio", description="Who sends them.")
    account: Text = Field(description="The account at the provider.")
    token: SecretText = Field(description="The token of the account: `{{ secrets.NAME }}`.")
    from_: Text = Field(alias="from", description="The number that they come from.")
    to: Annotated[Names, Field(min_length=1)] = Field(description="Who gets them.")


class Channel(Resource):
    """Where messages go: exactly one of `slack` and `sms`."""

    later: ClassVar[frozenset[str]] = frozenset({"email", "smtp", "webhook", "pagerduty", "teams"})

    slack: Slack | None = Field(None, description="Into a channel of Slack.")
    sms: Sms | None = Field(None, description="As text messages.")
    base_url: ProviderUrl | None = Field(None, description="Instead of the provider's own address.")
    rate: RateLimit = Field(Rate(1, SECOND), description="How many messages a destination gets.")


class HmacVerify(TemplateKeys):
    """A hexadecimal HMAC-SHA256 over the raw body, in a header."""

    preset: Literal["hmac"] = Field(description="How requests are signed.")
    header: Text = Field("x-signature", description="Where the signature stands.")
    secret: SecretText = Field(description="The shared secret: `{{ secrets.NAME }}`.")


class GithubVerify(TemplateKeys):
    """As GitHub signs."""

    preset: Literal["github"] = Field(description="How requests are signed.")
    secret: SecretText = Field(description="The shared secret: `{{ secrets.NAME }}`.")


class WebhookEvent(TemplateKeys):
    """The event that a request becomes; variables are `body` and `headers`."""

    type: WebhookText = Field(description="Its type.")
    id: WebhookText | None = Field(None, description="Its id; none: as the preset says, else a new one.")
    source: WebhookText | None = Field(None, description="Who says so; none: the webhook.")
    subject: WebhookText | None = Field(None, description="What it is about.")
    data: WebhookData = Field(None, description="None: the whole body.")


PRESETS = ("hmac", "github")
LATER_PRESETS = frozenset(
    ["stripe", "slack", "twilio", "pagerduty", "gitlab", "standard", "standard-webhooks", "bearer"]
)


def _tag_of(key: str) -> Discriminator:
    return Discriminator(lambda value: f"«{value.get(key)}»" if isinstance(value, dict) else None)


Verify = Annotated[
    Annotated[HmacVerify, Tag("«hmac»")] | Annotated[GithubVerify, Tag("«github»")],
    _tag_of("preset"),
]


class Webhook(Resource):
    """POST /hooks/NAME."""

    verify: Verify = Field(description="How a request proves where it comes from.")
    event: WebhookEvent | None = Field(
        None, description="None: as the preset says; the type is webhook.NAME otherwise."
    )


class SensorEvent(TemplateKeys):
    """The event that a message becomes; variables are `body` and `topic`."""

    type: SensorText = Field(description="Its type.")
    id: SensorText | None = Field(None, description="Its id; none: a new one.")
    source: SensorText | None = Field(None, description="Who says so; none: the sensor.")
    subject: SensorText | None = Field(None, description="What it is about.")
    time: SensorText | None = Field(None, description="When it happened; none: when it came.")
    data: SensorData = Field(None, description="None: the whole body.")


class HostSensor(Resource):
    """This machine's processor, memory and disk."""

    driver: Literal["host"] = Field(description="What it measures with.")
    every: Annotated[Duration, Field(ge=100_000)] = Field(1 * SECOND, description="How often.")


class MqttSensor(Resource):
    """Messages of an MQTT broker, acknowledged once our bus has them."""

    driver: Literal["mqtt"] = Field(description="What it measures with.")
    url: BrokerUrl = Field(description="The broker.")
    topics: Annotated[Names, Field(min_length=1)] = Field(
        description="What it subscribes to; `+` and `#` are wildcards."
    )
    qos: Annotated[int, Field(ge=0, le=2)] = Field(1, description="The quality of service of MQTT.")
    username: SecretText | None = Field(None, description="For the broker.")
    password: SecretText | None = Field(None, description="For the broker: `{{ secrets.NAME }}`.")
    event: SensorEvent


DRIVERS = ("host", "mqtt")
LATER_DRIVERS = frozenset(["opcua", "modbus", "http", "file", "sql", "snmp", "amqp", "exec", "serial"])
Sensor = Annotated[Annotated[HostSensor, Tag("«host»")] | Annotated[MqttSensor, Tag("«mqtt»")], _tag_of("driver")]


class Schedule(Resource):
    """Emits `penstock.schedule.fired` with its name as subject: exactly one of `every` and `cron`."""

    later: ClassVar[frozenset[str]] = frozenset({"rrule", "jitter", "calendar", "catch_up", "overlap"})

    every: Annotated[Duration, Field(ge=100_000)] | None = Field(
        None, description="An interval, from when it was first seen."
    )
    cron: Annotated[str, AfterValidator(check_cron)] | None = Field(
        None, description="Five fields: minute, hour, day, month, weekday."
    )
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field("UTC", description="Whose clocks `cron` means.")


class Limit(Resource):
    """A rate that holds for all flows that name it, everywhere."""

    later: ClassVar[frozenset[str]] = frozenset({"slots", "lease"})

    rate: Annotated[RateLimit, AfterValidator(_limited)] = Field(description="How many, in how long.")
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(1, description="How many may come at once.")
    on_outage: Literal["closed", "open"] = Field("closed", description="What holds while Redis cannot be asked.")
