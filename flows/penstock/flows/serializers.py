"""How a result becomes bytes: as JSON, or by cloudpickle where it is something else.

The journal is JSON. What is no JSON, or more than a row should hold, stands in it as a reference:
`{"$result": {"serializer": "pickle", "inline": "<base64>"}}` or, in a result store,
`{"$result": {"serializer": "json", "key": "results/ab…", "bytes": 2000000}}`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from penstock.flows.errors import FlowDefinitionError, ResultMissingError, TaskResultError
from penstock.flows.results import MAX_RESULT, ResultType, encode_json
from penstock.flows.store import ResultStore

MAX_INLINE = 1 << 16  # bytes of what is no JSON that stand in the journal; more goes to the store
MAX_STORED = 1 << 30  # bytes of one result
_MARK = b'{"$result":'


class Serializer(Protocol):
    """A way to bytes and back. name: the reference says by it how to read them."""

    name: str

    def dump(self, value: object, name: str) -> bytes:
        """The result of call `name` as bytes.  Raises TaskResultError."""

    def load(self, body: bytes) -> Any:
        """The value again."""


class JsonSerializer:
    """The default: readable by everybody, typed by the function's return annotation."""

    name = "json"

    def dump(self, value: object, name: str) -> bytes:
        return encode_json(value, name)

    def load(self, body: bytes) -> Any:
        return msgspec.json.decode(body)


class PickleSerializer:
    """For what has no JSON form: data frames, arrays, objects of one's own. Only a run's own worker should read it."""

    name = "pickle"

    def dump(self, value: object, name: str) -> bytes:
        try:
            return _pickler().dumps(value, protocol=5)  # type: ignore[no-any-return]  # cloudpickle has no types
        except Exception as error:  # pickling runs code of the value, which may raise anything
            raise TaskResultError(name, f"it cannot be pickled: {error}") from error

    def load(self, body: bytes) -> Any:
        return _pickler().loads(body)


_KNOWN: dict[str, Serializer] = {each.name: each for each in (JsonSerializer(), PickleSerializer())}


def find_serializer(given: str | Serializer) -> Serializer:
    """The serialiser of that name, or the one given, which is known by its name from here on."""
    if isinstance(given, str):
        if given not in _KNOWN:
            raise FlowDefinitionError(f"serializer={given!r}: there are {', '.join(map(repr, _KNOWN))}, or give one")
        return _KNOWN[given]
    if not (isinstance(getattr(given, "name", None), str) and hasattr(given, "dump") and hasattr(given, "load")):
        raise FlowDefinitionError(f"serializer={given!r}: it needs `name`, `dump(value, name)` and `load(body)`")
    return _KNOWN.setdefault(given.name, given)


@dataclass(frozen=True, slots=True)
class Packed:
    """A result ready for the journal. store: writes what is too large for it, first; None: nothing is."""

    body: bytes
    store: Callable[[], None] | None = None


def pack(value: object, name: str, serializer: Serializer, store: Callable[[], ResultStore]) -> Packed:
    """The result of call `name`, for the journal.  Raises TaskResultError."""
    body = serializer.dump(value, name)
    is_json = serializer.name == "json"
    if len(body) > MAX_STORED:
        raise TaskResultError(name, f"it has {len(body)} bytes, at most {MAX_STORED} are kept")
    if is_json and len(body) <= MAX_RESULT and not body.startswith(_MARK):
        return Packed(body)
    if len(body) <= MAX_INLINE:
        return Packed(_reference(serializer, inline=base64.b64encode(body).decode()))
    key = f"results/{_digest(body)}"
    reference = _reference(serializer, key=key, bytes=len(body))
    return Packed(reference, lambda: store().write(key, body))


def unpack(body: bytes, result_type: ResultType, store: Callable[[], ResultStore]) -> Any:
    """What a journalled result stands for.  Raises ResultMissingError."""
    if not body.startswith(_MARK):
        return result_type.decode(body)
    reference = msgspec.json.decode(body)["$result"]
    found = base64.b64decode(reference["inline"]) if "inline" in reference else _stored(reference["key"], store())
    name = reference["serializer"]
    if name == "json":
        return result_type.decode(found)
    if name not in _KNOWN:
        raise ResultMissingError(
            reference.get("key", "(inline)"), "the journal", f"is of serializer {name!r}, unknown here"
        )
    return _KNOWN[name].load(found)


def is_stored(body: bytes) -> bool:
    """Whether a journalled result lies in a store, so that reading it takes time."""
    return body.startswith(_MARK) and b'"key":' in body


def _stored(key: str, store: ResultStore) -> bytes:
    found = store.read(key)
    if found is None:
        raise ResultMissingError(key, store.url, "is not there")
    if f"results/{_digest(found)}" != key:
        raise ResultMissingError(key, store.url, "is not what was written (its digest differs)")
    return found


def _reference(serializer: Serializer, **where: object) -> bytes:
    return msgspec.json.encode({"$result": {"serializer": serializer.name, **where}})


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=20).hexdigest()


def _pickler() -> Any:
    try:
        import cloudpickle
    except ImportError:  # lambdas and classes of a running script are refused then, the rest is alike
        import pickle

        return pickle
    return cloudpickle
