"""From the events of a YAML parser to JSON values and the place of each: the core schema of YAML 1.2.2 (§10.3).

`on`, `no` and dates are strings, `0o17` and `0x1f` are numbers. Duplicate keys, unknown tags, NaN, infinities and NUL
are refused, so that what is read is JSON. An alias shares the value that it names, but counts with all that is in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from penstock.automations.problems import Problem

MAX_NODES = 500_000  # values of one file with aliases expanded: a few aliases of aliases can name billions
MAX_DEPTH = 100

_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NO_TEXT = frozenset("~nNtTfF-+.0123456789")  # what a plain scalar begins with that may be something else than text
_PREFIX = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(("!", _PREFIX + "str"))
_KNOWN_TAGS = _TEXT_TAGS | frozenset(
    _PREFIX + name for name in ("int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
)


class Mark(Protocol):
    """A place in a text. line, column: from 0."""

    line: int
    column: int


@dataclass(slots=True)
class Place:
    """Where a value stands that has more to it than its beginning.

    items, pairs: the places inside a list, and of key and value by name inside a mapping.
    spoiled: whether something at or below it was refused.
    """

    mark: Mark
    items: list[Spot] | None = None
    pairs: dict[str, tuple[Mark, Spot]] | None = None
    spoiled: bool = False


Spot: TypeAlias = Mark | Place  # most values are good scalars: their mark says it all
Event: TypeAlias = Any  # of one of two parsers, whose classes have names and attributes in common
Events: TypeAlias = Callable[[], Event]  # the next one


class UnreadableError(Exception):
    """The text as a whole cannot be used: `problem` says why.  Stays inside this package."""

    def __init__(self, mark: Mark, message: str, hint: str = "") -> None:
        self.mark, self.message, self.hint = mark, message, hint
        super().__init__(message)


@dataclass(slots=True)
class _Anchored:
    """A value that aliases may name. size: values in it, itself included. height: levels below it.

    text: what it says as a key; None: it is no scalar.  open: it is still being read, so an alias to it is a loop.
    """

    value: Any
    spot: Spot
    text: str | None = None
    size: int = 1
    height: int = 0
    open: bool = False


def compose(events: Events, file: str) -> tuple[Any, Spot | None, list[Problem]]:
    """The value of the only document, its place (None: there is nothing), and what was refused in it.

    Raises UnreadableError, and whatever the parser raises where the text is no YAML.
    """
    events()  # the stream begins
    if type(events()).__name__ == "StreamEndEvent":
        return None, None, []
    composer = _Composer(events, file)
    value, spot = composer.node(events(), 0)
    events()  # the document ends
    if type(following := events()).__name__ != "StreamEndEvent":
        raise UnreadableError(
            following.start_mark, "a second document (`---`) in one file", "put it into a file of its own"
        )
    return value, spot, composer.problems


@dataclass(slots=True)
class _Composer:
    """Reads one node after the other; called for each of a hundred thousand values, so it asks as little as it can."""

    next: Events
    file: str
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    count: int = 0  # values so far, aliases expanded
    deepest: int = 0  # level reached since the innermost open list or mapping began

    def node(self, event: Event, depth: int) -> tuple[Any, Spot]:
        """The value that begins with `event`, and its place."""
        kind = type(event).__name__
        if kind == "ScalarEvent":
            return self._scalar(event)
        if kind == "AliasEvent":
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise UnreadableError(event.start_mark, f"more than {MAX_DEPTH} lists and mappings inside each other")
        return self._collection(event, depth, mapping=kind == "MappingStartEvent")

    def _scalar(self, event: Event) -> tuple[Any, Spot]:
        self.count += 1
        if self.count > MAX_NODES:
            raise UnreadableError(event.start_mark, f"more than {MAX_NODES} values in one file", "split it")
        text: str = event.value
        mark: Mark = event.start_mark
        spot: Spot = mark
        value: Any
        if not event.style and text and text[0] not in _NO_TEXT and event.tag is None:
            value = text
        else:
            value, *reason = _meaning(text, event.style, event.tag)
            spot = self._refused(mark, *reason) if reason else mark
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, spot, text)
        return value, spot

    def _alias(self, event: Event, depth: int) -> tuple[Any, Spot]:
        found = self.anchors.get(event.anchor)
        if found is None:
            message = f"`*{event.anchor}` is read as a reference to another value"
            raise UnreadableError(event.start_mark, message, f"quote it: '*{event.anchor}'")
        mark = found.spot.mark if isinstance(found.spot, Place) else found.spot
        if found.open or self.count + found.size > MAX_NODES or depth + found.height > MAX_DEPTH:
            reason = "too many or too deeply nested values, or an alias that contains itself"
            return None, self._refused(mark, reason)
        self.count += found.size
        self.deepest = max(self.deepest, depth + found.height)
        return found.value, found.spot

    def _collection(self, event: Event, depth: int, *, mapping: bool) -> tuple[Any, Spot]:
        outer, self.deepest = self.deepest, depth
        before = self.count
        self.count += 1
        value: Any = {} if mapping else []
        place = Place(event.start_mark)
        anchored = _Anchored(value, place, open=True)
        if event.anchor is not None:
            self.anchors[event.anchor] = anchored
        told = len(self.problems)
        if mapping:
            self._mapping(value, place, depth + 1)
        else:
            self._sequence(value, place, depth + 1)
        if event.tag is not None and event.tag not in _KNOWN_TAGS:
            del self.problems[told:]  # what is inside may be right where this tag is understood
            value, place = None, self._refused(event.start_mark, *_strange(event.tag))
            anchored.value, anchored.spot = value, place
        anchored.open, anchored.size, anchored.height = False, self.count - before, self.deepest - depth
        self.deepest = max(outer, self.deepest)
        return value, place

    def _sequence(self, values: list[Any], place: Place, depth: int) -> None:
        spots: list[Spot] = []
        place.items = spots
        while type(event := self.next()).__name__ != "SequenceEndEvent":
            value, spot = self.node(event, depth)
            values.append(value)
            spots.append(spot)
            if type(spot) is Place and spot.spoiled:
                place.spoiled = True

    def _mapping(self, values: dict[str, Any], place: Place, depth: int) -> None:
        pairs: dict[str, tuple[Mark, Spot]] = {}
        place.pairs = pairs
        while type(event := self.next()).__name__ != "MappingEndEvent":
            name, mark, reason = self._key(event, depth, pairs)
            if reason is not None:
                place.spoiled = True
                self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, *reason))
            told = len(self.problems)
            value, spot = self.node(begin := self.next(), depth)
            if spot is begin.start_mark and value is None and not begin.value:
                spot = mark  # nothing is there: parsers differ in where
            if reason is not None:
                del self.problems[told:]  # of a value that belongs to nothing
                continue
            values[name], pairs[name] = value, (mark, spot)
            if type(spot) is Place and spot.spoiled:
                place.spoiled = True

    def _key(
        self, event: Event, depth: int, pairs: dict[str, tuple[Mark, Spot]]
    ) -> tuple[str, Mark, tuple[str, str] | None]:
        """The name that a key says, where it stands, and why it cannot be used."""
        mark: Mark = event.start_mark
        name: str | None
        if type(event).__name__ == "ScalarEvent":
            name = event.value
            if event.anchor is not None:
                self._scalar(event)
        else:
            name, mark = self._odd_key(event, depth)
        if name is None:
            return (
                "",
                mark,
                ("a key must be plain text, not a list or a mapping", "quote `{{ … }}` where it begins a value"),
            )
        if name in pairs:
            first = pairs[name][0].line + 1
            return (
                name,
                mark,
                (f"key `{name}` stands here twice, first in line {first}", "remove or rename one of them"),
            )
        return name, mark, None

    def _odd_key(self, event: Event, depth: int) -> tuple[str | None, Mark]:
        """A key that is an alias, a list or a mapping; None: no text."""
        told = len(self.problems)
        _, spot = self.node(event, depth)
        del self.problems[told:]
        mark = spot.mark if isinstance(spot, Place) else spot
        if type(event).__name__ != "AliasEvent":
            return None, mark
        return self.anchors[event.anchor].text, mark

    def _refused(self, mark: Mark, message: str, hint: str = "") -> Place:
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message, hint))
        return Place(mark, spoiled=True)


def _meaning(text: str, style: str | None, tag: str | None) -> tuple[Any, ...]:
    """The value of a scalar; and, where it is no JSON, the reason and a hint.  style: "" and None are plain."""
    if tag is not None and tag not in _KNOWN_TAGS:
        return None, *_strange(tag)
    if "\0" in text:
        return None, "contains the character NUL, which cannot be stored"
    if style or tag in _TEXT_TAGS:
        return (text,)
    if text in _WORDS:
        return (_WORDS[text],)
    if _INT.match(text) and len(text) <= 300:
        return (int(text, 0) if text[:2] in ("0o", "0x") else int(text),)
    if _FLOAT.match(text):
        number = float(text)
        return (number,) if math.isfinite(number) else (None, f"{text} is larger than a JSON number may be")
    if _NOT_FINITE.match(text):
        return None, f"{text} is no JSON value", "write a number, or quote it to mean the text"
    return (text,)


def _strange(tag: str) -> tuple[str, str]:
    return f"tag {tag.replace(_PREFIX, '!!')!r} is not understood here", "write a plain value"
