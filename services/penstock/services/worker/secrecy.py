"""The secrets of one run: clear only on their way into its process, covered in whatever comes out of it.

Logs and errors get a mask. Results of tasks must come back as they were when the run is resumed: in them a secret is
replaced by its placeholder, which carries the run's nonce, and put back before a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.automations.secrets import environment_lookup, mask, placeholder, reveal, revealed_names

_PREFIX = "PENSTOCK_SECRET_"
_SHORTEST = 6  # characters of a secret that is masked although the run was not given it; "1" would mask half of a log


class Secrecy:
    """What one run may know.  Raises UnknownSecretError for a parameter that names a secret without a value."""

    def __init__(self, parameters: str, nonce: str, environment: Mapping[str, str]) -> None:
        lookup = environment_lookup(environment)
        stored = msgspec.json.decode(parameters)
        self._nonce, self._lookup = nonce, lookup
        given = {name: lookup(name) for name in revealed_names(stored, nonce)} if nonce else {}
        self._known = {name: value for name, value in given.items() if value}
        others = (value for name, value in environment.items() if name.startswith(_PREFIX) and len(value) >= _SHORTEST)
        self._covered = {*self._known.values(), *others}
        self.parameters: bytes = msgspec.json.encode(reveal(stored, nonce, lookup)) if given else parameters.encode()

    def mask(self, text: str) -> str:
        """Text for logs and errors."""
        return mask(text, self._covered)

    def mask_within(self, body: bytes) -> Any:
        """The decoded JSON value, each text in it masked."""
        return _each_string(msgspec.json.decode(body), self.mask)

    def cover(self, body: bytes) -> bytes:
        """A JSON result as it may be stored."""
        if not any(value in body.decode() or _escaped(value) in body for value in self._known.values()):
            return body
        return msgspec.json.encode(_each_string(msgspec.json.decode(body), self._cover))

    def uncover(self, body: bytes) -> bytes:
        """A stored JSON result as the run returned it."""
        if not self._nonce or self._nonce.encode() not in body:
            return body
        return msgspec.json.encode(reveal(msgspec.json.decode(body), self._nonce, self._lookup))

    def _cover(self, text: str) -> str:
        for name, value in sorted(self._known.items(), key=lambda each: len(each[1]), reverse=True):
            text = text.replace(value, placeholder(name, self._nonce))
        return text


def _each_string(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _each_string(item, change) for key, item in value.items()}
    return [_each_string(item, change) for item in value] if isinstance(value, list) else value


def _escaped(value: str) -> bytes:
    """The inside of a JSON string."""
    return msgspec.json.encode(value)[1:-1]
