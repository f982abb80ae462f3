"""YAML 1.2 read with the position of every key and value.

libyaml parses where it can: it is many times as fast as ruamel.yaml. It knows YAML 1.1 and differs in corners; a text
that it refuses, or that has one of these corners, is parsed by ruamel.yaml, which has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from penstock.automations.collecting import garbage_waits
from penstock.automations.composing import Events, Mark, Place, Spot, UnreadableError, compose
from penstock.automations.problems import Path, Problem

MAX_TEXT = 4 << 20  # characters of one file

# What the two parsers read differently: tabs, the line breaks of YAML 1.1, byte order marks inside a text; directives;
# keys with `?`, at the beginning of a line or in brackets; a comment that touches the mark of a block of text; a tag
# before an anchor, or with a handle that is none; an anchor with more in its name than letters, digits and dashes.
_CORNERS = "\t\x85\u2028\u2029\ufeff"
_QUESTION = re.compile(r"(?:^|[-?:\[{,]) *\?(?!\S)", re.MULTILINE)
_BESIDE = re.compile(
    r"""[|>][-+0-9]*#|![^\s!]*\s+&|(?<![^\s\[{,])(?:![^\s!]{0,64}[^\s!\w][^\s!]{0,64}!|!!!|[*&][\w-]{0,64}[^\w\s\[\]{},"'-])"""
)


@dataclass(frozen=True, slots=True)
class Document:
    """One file as JSON values, with the position of everything in it.

    root: the place of the whole; None: the file is empty.
    """

    file: str
    value: Any
    root: Spot | None = None

    def is_spoiled(self, path: Path) -> bool:
        """Whether something at or below `path` was refused; it must not be used."""
        found = self._spots(path)
        return len(found) == len(path) + 1 and isinstance(found[-1][1], Place) and found[-1][1].spoiled

    def position(self, path: Path, *, at: Literal["key", "value"] = "value") -> tuple[int, int]:
        """(line, column) from 1 of what stands at `path`, or of its closest ancestor that the file does have."""
        found = self._spots(path)
        if not found:
            return 1, 1
        key, spot = found[-1]
        if at == "value" or key is None:
            key = spot.mark if isinstance(spot, Place) else spot
        return key.line + 1, key.column + 1

    def problem(
        self,
        path: Path,
        message: str,
        hint: str = "",
        *,
        at: Literal["key", "value"] = "value",
        severity: Literal["error", "warning"] = "error",
    ) -> Problem:
        """A problem at `path`, or at its closest ancestor that the file does have."""
        return Problem(self.file, *self.position(path, at=at), message, hint, severity)

    def paths(self) -> Iterator[Path]:
        """The path of every value, the root's first; an alias has what it names below it."""
        if self.root is not None:
            yield from _paths(self.root, ())

    def _spots(self, path: Path) -> list[tuple[Mark | None, Spot]]:
        """The mark of the key and the place of each value on the way, the root's first, as far as there are any."""
        if self.root is None:
            return []
        found: list[tuple[Mark | None, Spot]] = [(None, self.root)]
        for part in path:
            inner = _inside(found[-1][1], part)
            if inner is None:
                break
            found.append(inner)
        return found


def read(file: str, text: str) -> tuple[Document | None, list[Problem]]:
    """The document and what is wrong with it as YAML; None where it cannot be read at all."""
    if len(text) > MAX_TEXT:
        return None, [Problem(file, 1, 1, f"{len(text)} characters in one file; at most {MAX_TEXT} are read. Split it")]
    with garbage_waits():
        return _read_fast(file, text) or _read_slowly(file, text)


def _read_fast(file: str, text: str) -> tuple[Document | None, list[Problem]] | None:
    """None: that is for ruamel.yaml to say."""
    if not yaml.__with_libyaml__ or _has_corners(text):
        return None
    try:
        found = _read(file, libyaml_events(text))
    except (yaml.YAMLError, ValueError):
        return None
    lone = found[0] is not None and found[0].root is not None and not isinstance(found[0].root, Place)
    return None if lone else found  # a text without lists and mappings is no rule file, and has corners of its own


def _read_slowly(file: str, text: str) -> tuple[Document | None, list[Problem]]:
    try:
        return _read(file, ruamel_events(text))
    except MarkedYAMLError as error:
        return None, [_syntax(file, error)]
    except (YAMLError, ValueError, RecursionError) as error:
        return None, [Problem(file, 1, 1, f"cannot be read as YAML: {' '.join(str(error).split())[:200]}")]


def _has_corners(text: str) -> bool:
    if any(each in text for each in _CORNERS) or text.startswith("%") or "\n%" in text:
        return True
    return ("?" in text and _QUESTION.search(text) is not None) or _BESIDE.search(text) is not None


def libyaml_events(text: str) -> Events:
    """Of the fast parser.  Each call raises yaml.YAMLError where the text is no YAML 1.1."""
    found: Events = yaml.CSafeLoader(text).get_event
    return found


def ruamel_events(text: str) -> Events:
    """Of the slow parser.  Each call raises ruamel's YAMLError where the text is no YAML 1.2."""
    found: Events = YAML(typ="safe", pure=True).parse(text).__next__
    return found


def _read(file: str, events: Events) -> tuple[Document | None, list[Problem]]:
    try:
        value, root, problems = compose(events, file)
    except UnreadableError as error:
        return None, [Problem(file, error.mark.line + 1, error.mark.column + 1, error.message, error.hint)]
    return Document(file, value, root), problems


def _inside(spot: Spot, part: str | int) -> tuple[Mark | None, Spot] | None:
    """What stands at one name or index of a mapping or list: the mark of its key, and its place."""
    if not isinstance(spot, Place):
        return None
    if isinstance(part, str):
        return spot.pairs.get(part) if spot.pairs is not None else None
    return (None, spot.items[part]) if spot.items is not None and 0 <= part < len(spot.items) else None


def _paths(spot: Spot, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(spot, Place):
        for index, item in enumerate(spot.items or ()):
            yield from _paths(item, (*path, index))
        for name, (_, inner) in (spot.pairs or {}).items():
            yield from _paths(inner, (*path, name))


def _syntax(file: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = ", ".join(" ".join(str(part).split()) for part in (error.context, error.problem) if part)
    if "found character '\\t'" in reason:
        return Problem(file, line, column, "a tab where YAML allows only spaces", "indent with spaces")
    message, hint = f"not valid YAML: {reason or 'unknown error'}", "check indentation, quotes and brackets here"
    return Problem(file, line, column, message, hint)
