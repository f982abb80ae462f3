"""Keys: what `per` reads from an event, as canonical JSON text: 7 and "7" are two keys, 7 and 7.0 are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.events.ids import derived_id

_OBJECT = (dict, Mapping)  # in this order: asking for a Mapping takes longer
NO_KEY = "null"  # a rule without `per` has this one key
_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(value: Any) -> str:
    """A JSON value as text: object keys sorted, no spaces, whole numbers without a fraction."""
    return _encoder.encode(_plain(value)).decode()


def key_of(event: Mapping[str, Any], per: Sequence[str]) -> str:
    """The key of an event for the paths of `per`: null where a path is missing; several paths give a list."""
    if not per:
        return NO_KEY
    values = [_lookup(event, path) for path in per]
    return canonical(values[0] if len(values) == 1 else values)


def partition_of(namespace: str, automation: str, key: str, partitions: int) -> int:
    """Where the window of (automation, key) lives: the same place in every process, for ever."""
    return int(derived_id(namespace, automation, key)[:8], 16) % partitions


def _lookup(event: Mapping[str, Any], path: str) -> Any:
    found: Any = event
    for name in path.split("."):
        if not isinstance(found, _OBJECT):
            return None
        found = found.get(name)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
