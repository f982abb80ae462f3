"""Secrets in templates: a placeholder while anything is stored, the clear value only at the moment of delivery.

A placeholder carries the random nonce of its firing, so that an event which spells one out reveals nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from penstock.events.errors import PenstockError

Lookup: TypeAlias = Callable[[str], str]  # a secret's clear value by name; raises UnknownSecretError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z", re.ASCII)
MASK = "•••"
_PREFIX = "PENSTOCK_SECRET_"
_PLACEHOLDER = re.compile("\u27e6secret:([A-Za-z_][A-Za-z0-9_]*):([^\u27e6\u27e7:]*)\u27e7", re.ASCII)


class UnknownSecretError(PenstockError):
    """A secret is referred to and has no value."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"secret {name!r} has no value: set the environment variable {_PREFIX}{name} and restart")


def placeholder(name: str, nonce: str) -> str:
    """What `{{ secrets.NAME }}` renders to."""
    return f"\u27e6secret:{name}:{nonce}\u27e7"


def reveal(value: Any, nonce: str, lookup: Lookup) -> Any:
    """Text or JSON with every placeholder of this nonce replaced, keys of mappings too; others stay as they are.

    For the one who delivers, last of all: the result must not be stored or logged.  Raises UnknownSecretError.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: lookup(found[1]) if found[2] == nonce else found[0], value)
    if isinstance(value, Mapping):
        return {reveal(key, nonce, lookup): reveal(item, nonce, lookup) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(item, nonce, lookup) for item in value]
    return value


def revealed_names(value: Any, nonce: str) -> frozenset[str]:
    """The names of the secrets that `reveal` would put in: what to mask in the answer of whoever got them."""
    names: set[str] = set()

    def note(name: str) -> str:
        names.add(name)
        return ""

    reveal(value, nonce, note)
    return frozenset(names)


def mask(text: str, values: Iterable[str]) -> str:
    """The text with each clear value blotted out, longest first, so that no rest of a longer one stays."""
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def environment_lookup(environment: Mapping[str, str]) -> Lookup:
    """Reads `secrets.NAME` from PENSTOCK_SECRET_NAME of a mapping."""

    def lookup(name: str) -> str:
        try:
            return environment[_PREFIX + name]
        except KeyError:
            raise UnknownSecretError(name) from None

    return lookup
