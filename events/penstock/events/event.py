"""The CloudEvents 1.0.2 envelope, twice: a pydantic model at the edge, a msgspec struct on the hot path.

`Event` is what people write and read. `Envelope` is what services decode by the hundred thousand: it leaves `data`
undecoded. Both accept and refuse the same bytes and give the same values; a property test holds them equal.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from penstock.events.errors import InvalidEventError
from penstock.events.ids import new_id
from penstock.events.instants import Instant, format_instant, to_instant

MAX_BODY = 1 << 20  # bytes of one event as JSON; larger ones are refused at every door
MAX_HOPS = 1_000  # the hop budget proper is a rule of the engine; this bounds what an envelope may claim
MAX_DEPTH = 100  # objects and arrays inside each other; readers recurse, so a bound must not depend on their stack
MAX_INTEGER = 1 << 31  # CloudEvents' Integer has 32 bits; it bounds extension attributes, not numbers in `data`
RESERVED_PREFIX = "penstock."

_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,64}\Z")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_NUL = b"\\u0000"
_NO_NUL = r"contains \u0000 (the character NUL), which cannot be stored; remove or encode it"
_BRACKET_OR_TEXT = re.compile(rb'[{}\[\]]|"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_RFC3339 = 'not an RFC 3339 time with an offset; write e.g. "2026-03-01T10:00:00Z"'


def _parse_time(value: object) -> object:
    """RFC 3339 with an offset, as msgspec reads it, so that the model and the struct agree to the microsecond."""
    if isinstance(value, str):
        if not _RFC3339.match(value):
            raise ValueError(_NOT_RFC3339)
        try:
            return _in_range(msgspec.convert(value, datetime))
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone; write e.g. datetime.now(timezone.utc)")
        return _in_range(value)
    raise ValueError(f"{value!r} is not a time; write it as an RFC 3339 string")


def _in_range(moment: datetime) -> datetime:
    """The moment, if it has a year between 1 and 9999 in UTC too.  Raises ValueError."""
    if moment.year in (1, 9999):
        try:
            moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("lies outside the years 1 to 9999 in UTC") from None
    return moment


Text = Annotated[str, Field(min_length=1, max_length=1024)]
Timestamp = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    PlainSerializer(lambda moment: format_instant(to_instant(moment)), return_type=str),
]


class Event(BaseModel):
    """One immutable fact. `source` and `id` together name it; a redelivery carries the same pair.

    `type` is dotted and past tense ("order.placed"); `time` is when it happened (none: its arrival); `data` is any
    JSON. Other keyword arguments are CloudEvents extension attributes: lower-case letters and digits, scalar values.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        strict=True,
        ser_json_inf_nan="constants",  # else NaN would become null unseen; `encode_mapping` refuses it
    )

    specversion: Literal["1.0"] = "1.0"
    id: Text = Field(default_factory=new_id)
    source: Text = "/penstock/client"
    type: Text
    subject: Text | None = None
    time: Timestamp | None = None
    datacontenttype: Text | None = None
    dataschema: Text | None = None
    data: Any = None
    data_base64: str | None = None  # bytes that are no JSON; instead of `data`
    partitionkey: Text | None = None  # decides the partition, hence the order
    correlationid: Text | None = None  # the root cause of a chain
    causationid: Text | None = None  # the event directly before
    traceparent: Text | None = None  # W3C trace context
    hops: Annotated[int, Field(ge=0, le=MAX_HOPS)] = 0  # how many automations lie behind

    @model_validator(mode="after")
    def _check_extensions(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            _check_extension(name, value)
        if self.data_base64 is not None:
            _check_base64(self.data_base64, has_data="data" in self.model_fields_set and self.data is not None)
        return self

    @property
    def key(self) -> tuple[str, str]:
        """Its identity, (source, id)."""
        return self.source, self.id

    @property
    def ordering_key(self) -> str:
        """What decides its partition: events of one ordering key are read in the order they were acknowledged."""
        return self.partitionkey or self.subject or self.source

    def to_mapping(self) -> dict[str, Any]:
        """The CloudEvents JSON object: attributes without a value are left out, `data` is kept as it is."""
        found = self.model_dump(mode="json")
        kept = {name: value for name, value in found.items() if value is not None}
        if self.hops == 0:
            kept.pop("hops")
        if self.data is None and "data" in self.model_fields_set:
            kept["data"] = None
        return kept

    def to_json(self) -> bytes:
        """The CloudEvents JSON format, checked against the size limit.  Raises InvalidEventError above 1 MiB."""
        body = encode_mapping(self._dumped())
        _check_body(body)
        _check_depth(body)
        return body

    def _dumped(self) -> dict[str, Any]:
        try:
            return self.to_mapping()
        except (ValueError, TypeError, RecursionError) as error:  # pydantic's serialization errors are ValueErrors
            raise InvalidEventError(f"cannot be written as JSON: {error}", field="data") from None


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What the services need of an event; `data` stays undecoded JSON.  Field for field as in `Event`."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    specversion: Literal["1.0"] = "1.0"
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    datacontenttype: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    dataschema: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    data_base64: str | None = None
    partitionkey: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    correlationid: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    causationid: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    traceparent: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    hops: Annotated[int, msgspec.Meta(ge=0, le=MAX_HOPS)] = 0

    @property
    def key(self) -> tuple[str, str]:
        """Its identity, (source, id)."""
        return self.source, self.id

    @property
    def ordering_key(self) -> str:
        """As `Event.ordering_key`."""
        return self.partitionkey or self.subject or self.source

    def at(self, arrival: Instant) -> Instant:
        """Event time; an event without `time` takes its arrival."""
        return arrival if self.time is None else to_instant(self.time)


_ATTRIBUTES = frozenset(Envelope.__struct_fields__)
_envelope_decoder = msgspec.json.Decoder(Envelope)


def decode(body: bytes) -> Envelope:
    """One structured CloudEvent from the bus.  Raises InvalidEventError with the attribute at fault."""
    return _decode(body)[0]


def decode_again(body: bytes) -> Envelope:
    """The envelope of an event that `decode` has taken before, without looking for what it refuses.

    Raises InvalidEventError.
    """
    try:
        return _envelope_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _explained(error, body) from None


def parse(body: bytes) -> Event:
    """One structured CloudEvent at the edge.  Raises InvalidEventError with the attribute at fault."""
    return from_mapping(_decode(body)[1])


def _decode(body: bytes) -> tuple[Envelope, dict[str, Any]]:
    """Where one attribute is given twice, both must be valid and the last one counts."""
    _check_body(body)
    try:
        _check_depth(body)
        envelope = _envelope_decoder.decode(body)
        # The struct passes over what it does not know, and over what is inside `data`; this looks at all of it.
        mapping = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _explained(error, body) from None
    _check_beside(envelope, mapping)
    return envelope, mapping


def _check_beside(envelope: Envelope, mapping: Mapping[str, Any]) -> None:
    """What the struct's types do not say.  Raises InvalidEventError."""
    if not _ATTRIBUTES.issuperset(mapping):
        _check_extensions(mapping)
    if envelope.time is None and envelope.data_base64 is None:
        return
    field = "time"
    try:
        if envelope.time is not None:
            if not _RFC3339.match(mapping["time"]):
                raise ValueError(_NOT_RFC3339)  # noqa: TRY301 -- joined with the other refusals below
            _in_range(envelope.time)
        field = "data_base64"
        if envelope.data_base64 is not None:
            _check_base64(envelope.data_base64, has_data=mapping.get("data") is not None)
    except ValueError as error:
        raise InvalidEventError(str(error), field=field) from None


def _check_extensions(mapping: Mapping[str, Any]) -> None:
    for name in mapping.keys() - _ATTRIBUTES:
        try:
            _check_extension(name, mapping[name])
        except ValueError as error:
            raise InvalidEventError(str(error), field=name) from None


def from_mapping(mapping: object) -> Event:
    """An event from a decoded JSON object.  Raises InvalidEventError."""
    if not isinstance(mapping, dict):
        raise InvalidEventError(f"an event is a JSON object, not {type(mapping).__name__}")
    missing = [name for name in ("id", "source", "type") if name not in mapping]
    if missing:
        raise InvalidEventError("required by CloudEvents 1.0 and missing", field=missing[0])
    if _holds_nul(mapping):
        raise InvalidEventError(_NO_NUL, field="data")
    try:
        return Event.model_validate(mapping)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidEventError(str(first["msg"]).removeprefix("Value error, "), field=field) from None


def refuse_reserved(type_: str) -> None:
    """Types `penstock.*` belong to Penstock's own services.  Raises InvalidEventError."""
    if type_.startswith(RESERVED_PREFIX):
        raise InvalidEventError(
            f"{type_!r} is reserved: types that begin with {RESERVED_PREFIX!r} are Penstock's own", field="type"
        )


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def encode_mapping(mapping: Mapping[str, Any]) -> bytes:
    """A mapping as JSON; what JSON cannot say is refused, not changed.  Raises InvalidEventError."""
    try:
        return json.dumps(mapping, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidEventError("holds half of a surrogate pair, which is no text; remove it", field="data") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidEventError(f"cannot be written as JSON: {error}", field="data") from None


def _check_extension(name: str, value: object) -> None:
    if not _EXTENSION_NAME.match(name):
        raise ValueError(
            f"{name!r} is no name for an extension attribute: lower-case letters and digits only;"
            " other content belongs under `data`"
        )
    if not isinstance(value, str | int | bool) and value is not None:
        raise ValueError(f"extension {name!r} must be a string, integer or boolean; put structure under `data`")
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ValueError(f"extension {name!r} must fit 32 bits, as CloudEvents' integers do; write it as a string")


def _check_base64(value: str, *, has_data: bool) -> None:
    if has_data:
        raise ValueError("stands beside `data`; an event has one of them")
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not Base64 (RFC 4648, with padding)") from None


def _check_depth(body: bytes) -> None:
    """Raises InvalidEventError; whatever the depth, this does not recurse."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for found in _BRACKET_OR_TEXT.finditer(body):
        mark = found[0]
        depth += 1 if mark in (b"{", b"[") else -1 if mark in (b"}", b"]") else 0
        if depth > MAX_DEPTH:
            raise InvalidEventError(f"objects and arrays are nested deeper than {MAX_DEPTH}; flatten it", field="data")


def _check_body(body: bytes) -> None:
    if len(body) > MAX_BODY:
        raise InvalidEventError(f"{len(body)} bytes; at most {MAX_BODY} (1 MiB) are taken. Send a reference instead")
    if _NUL in body and _has_nul(body):
        raise InvalidEventError(_NO_NUL, field="data")


def _holds_nul(value: object) -> bool:
    """Whether some text in it has the character NUL; without recursion, however deep it is."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            if "\0" in each:
                return True
        elif isinstance(each, Mapping):
            left += [*each, *each.values()]
        elif isinstance(each, list | tuple):
            left += each
    return False


def _has_nul(body: bytes) -> bool:
    r"""Whether an escape `\u0000` is really one: the backslash before `u` is not itself escaped."""
    at = body.find(_NUL)
    while at >= 0:
        backslashes = 0
        while at - backslashes > 0 and body[at - backslashes - 1] == 0x5C:
            backslashes += 1
        if backslashes % 2 == 0:
            return True
        at = body.find(_NUL, at + 1)
    return False


def _explained(error: Exception, body: bytes) -> InvalidEventError:
    """msgspec's message ends in "- at `$.field`" or names the missing field in quotes."""
    if isinstance(error, InvalidEventError):
        return error
    text = str(error)
    reason, _, path = text.partition(" - at `$")
    field = path.strip(".`").partition(".")[0].partition("[")[0]
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        return InvalidEventError("required by CloudEvents 1.0 and missing", field=missing.group(1))
    if text.startswith("Expected `object`"):
        return InvalidEventError(f"an event is a JSON object: {text}")
    if not isinstance(error, msgspec.ValidationError):
        hint = " (or it holds half of a surrogate pair)" if _SURROGATE.search(body) else ""
        return InvalidEventError(f"the body is not JSON: {text}{hint}")
    return InvalidEventError(reason, field=field)
