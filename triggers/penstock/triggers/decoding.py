"""JSON text to what patterns look at.

`Reader` decodes only the named paths, into structs made for them; whatever is not plain (arrays, a scalar where an
object was expected, a key with dots, a repeated key, a lone surrogate) makes it give up, and `decode` reads it all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, cast

import msgspec

from penstock.triggers.flattening import Both
from penstock.triggers.operators import ABSENT, FALSE, TRUE

MAX_PATHS: Final = 64  # more are cheaper to find by walking the event
MAX_KEYS: Final = 8  # of one path; deeper ones are found by walking

_Scalar = str | int | float | bool | None
_Never = Annotated[str, msgspec.Meta(min_length=1, max_length=0)]
_ESCAPED_KEY = re.compile(rb'(?<!\\)"[^"\\]*\\(?:[^"\\]|\\.)*"\s*:', re.DOTALL)


class Unplain(Exception):
    """The event must be walked."""


# msgspec raises its own errors, ValueError for text and numbers that it cannot take, AttributeError comes from `pick`
GIVES_UP: Final = (
    Unplain,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    AttributeError,
)


class Reader:
    """The values at some paths, in their order, of events that are plain.

    exact: those of the paths whose booleans must be told from 1 and 0.  unique: no key is there twice in one object.
    `pick(decode(body))` is a tuple of JSON scalars, ABSENT where there is no leaf; where `settle` is not None,
    `settle(values, body)` makes them tokens and looks for repeated keys.  All raise one of GIVES_UP where the event is
    not plain.
    """

    __slots__ = ("_needles", "_struct", "_unsettled", "decode", "pick", "settle")

    def __init__(self, paths: list[str], exact: set[str], *, unique: bool) -> None:
        plan = _Plan()
        for path in paths:
            plan.add(path.split("."))
        self._struct = plan.struct("Event")
        names = [plan.name(path.split(".")) for path in paths]
        self.pick = _picking(names)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._struct).decode
        self._unsettled = tuple(
            slot for slot, path in enumerate(paths) if path in exact or plan.is_object(path.split("."))
        )
        keys = sorted({key for path in paths for key in path.split(".")})
        self._needles = () if unique else tuple(msgspec.json.encode(key) for key in keys)
        self.settle = self._settle if self._unsettled or self._needles else None

    def of_mapping(self, event: Mapping[str, Any]) -> tuple[Any, ...]:
        """The tokens of a decoded event.  Raises one of GIVES_UP."""
        values = self.pick(msgspec.convert(event, self._struct))
        return self._tokens(values) if self._unsettled else values

    def _settle(self, values: tuple[Any, ...], body: bytes) -> tuple[Any, ...]:
        if self._needles:
            if 92 in body and _ESCAPED_KEY.search(body):  # a backslash: a key may be spelled in another way
                raise Unplain
            count = body.count
            for needle in self._needles:
                if count(needle) > 1:
                    _refuse_repeats(body)
                    break
        return self._tokens(values) if self._unsettled else values

    def _tokens(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        settled = [*values]
        for slot in self._unsettled:
            value = settled[slot]
            if value is True:
                settled[slot] = TRUE
            elif value is False:
                settled[slot] = FALSE
            elif isinstance(value, msgspec.Struct):
                settled[slot] = ABSENT  # an object is no leaf
        return tuple(settled)


def _picking(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """The function that takes the values of attributes, such as `f0.f3`; three times as quick as an attrgetter."""
    found = eval(f"lambda event: ({''.join(f'event.{name},' for name in names)})", {})  # noqa: S307 - of names made by _Plan, f0.f3
    return cast("Callable[[Any], tuple[Any, ...]]", found)


class _Plan:
    """An object of the event: which of its keys are looked at."""

    def __init__(self) -> None:
        self.leaf = False
        self.below: dict[str, _Plan] = {}
        self.dotted: set[str] = set()

    def add(self, keys: list[str]) -> None:
        if not keys:
            self.leaf = True
            return
        self.below.setdefault(keys[0], _Plan()).add(keys[1:])
        self.dotted |= {".".join(keys[:end]) for end in range(2, len(keys) + 1)}

    def name(self, keys: list[str]) -> str:
        """The path of attributes that leads to a path of keys."""
        place, names = self, []
        for key in keys:
            names.append(f"f{list(place.below).index(key)}")
            place = place.below[key]
        return ".".join(names)

    def is_object(self, keys: list[str]) -> bool:
        """Whether other paths lead through this one."""
        place = self
        for key in keys:
            place = place.below[key]
        return bool(place.below)

    def struct(self, name: str) -> type[msgspec.Struct]:
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for at, (key, plan) in enumerate(self.below.items()):
            rename[f"f{at}"] = key
            if plan.below:
                inner = plan.struct(f"{name}_{at}")
                kind: Any = inner | _Scalar if plan.leaf else inner
                fields.append((f"f{at}", kind, inner()))
            else:
                fields.append((f"f{at}", _Scalar, ABSENT))
        for at, key in enumerate(sorted(self.dotted - self.below.keys())):
            rename[f"d{at}"] = key
            fields.append((f"d{at}", _Never, ABSENT))
        return msgspec.defstruct(name, fields, rename=rename, gc=False, frozen=True)


def reader(paths: Iterable[str], exact: set[str], *, unique: bool) -> Reader | None:
    """A reader for the paths, or None where walking the event is the better way."""
    listed = list(paths)
    if not 0 < len(listed) <= MAX_PATHS or any(path.count(".") >= MAX_KEYS for path in listed):
        return None
    try:
        return Reader(listed, exact, unique=unique)
    except (ValueError, TypeError):  # a key that no struct can have: a lone surrogate, NUL
        return None


def decode(body: bytes, *, unique: bool = False) -> Any:
    """An event as JSON, with `Both` where a key is repeated; None where the text is no JSON.  Never raises.

    unique: no key is repeated, which saves the search.  Lone surrogates pass; NaN and infinities are no JSON.
    """
    if unique:
        try:
            return msgspec.json.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _decoded(body)  # which takes lone surrogates and huge numbers
    return _decoded(body)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(str(body, "utf-8"), object_pairs_hook=_content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _content(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated: dict[str, list[object]] = {}
        for key, value in pairs:
            repeated.setdefault(key, []).append(value)
        content = {key: values[0] if len(values) == 1 else Both(values) for key, values in repeated.items()}
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _refuse_repeats(body: bytes) -> None:
    """Raises Unplain if any object of the event has a key twice."""
    try:
        json.loads(str(body, "utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Unplain from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Unplain
