"""YAML 1.2 read with the position of every key and value.

The core schema of YAML 1.2.2 (§10.3): `on`, `no` and dates are strings, `0o17` and `0x1f` are numbers. Duplicate keys,
unknown tags, NaN, infinities and NUL are refused, so that what is read is JSON.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from penstock.automations.problems import Path, Problem

MAX_TEXT = 4 << 20  # characters of one file
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
_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
)


@dataclass(frozen=True, slots=True)
class Document:
    """One file as JSON values, with the position of everything in it.

    keys, values: (line, column) from 1, by path; a list item has a value position only.
    spoiled: paths at which something was refused; what lies there must not be used.
    """

    file: str
    value: Any
    keys: dict[Path, tuple[int, int]]
    values: dict[Path, tuple[int, int]]
    spoiled: tuple[Path, ...] = ()

    def is_spoiled(self, path: Path) -> bool:
        """Whether something at or below `path` was refused."""
        return any(bad[: len(path)] == path for bad in self.spoiled)

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
        first, second = (self.keys, self.values) if at == "key" else (self.values, self.keys)
        line, column = 1, 1
        for length in range(len(path), -1, -1):
            found = first.get(path[:length]) or second.get(path[:length])
            if found:
                line, column = found
                break
        return Problem(self.file, line, column, message, hint, severity)


def read(file: str, text: str) -> tuple[Document | None, list[Problem]]:
    """The document and what is wrong with it as YAML; None where it cannot be read at all."""
    if len(text) > MAX_TEXT:
        return None, [Problem(file, 1, 1, f"{len(text)} characters in one file; at most {MAX_TEXT} are read. Split it")]
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        return None, [_syntax(file, error)]
    except (YAMLError, ValueError, RecursionError) as error:
        return None, [Problem(file, 1, 1, f"cannot be read as YAML: {' '.join(str(error).split())[:200]}")]
    reader = _Reader(file)
    value = reader.read(node, ()) if node is not None else None
    return Document(file, value, reader.keys, reader.values, tuple(reader.spoiled)), reader.problems


def _syntax(file: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = ", ".join(" ".join(str(part).split()) for part in (error.context, error.problem) if part)
    if "found character '\\t'" in reason:
        return Problem(file, line, column, "a tab where YAML allows only spaces", "indent with spaces")
    if found := re.search(r"undefined alias '(.*)'", reason):
        return Problem(
            file, line, column, f"`*{found[1]}` is read as a reference to another value", f"quote it: '*{found[1]}'"
        )
    if "expected a single document" in reason:
        return Problem(file, line, column, "a second document (`---`) in one file", "put it into a file of its own")
    return Problem(
        file,
        line,
        column,
        f"not valid YAML: {reason or 'unknown error'}",
        "check indentation, quotes and brackets here",
    )


@dataclass
class _Reader:
    """Walks the composed nodes once."""

    file: str
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    spoiled: list[Path] = field(default_factory=list)
    open: set[int] = field(default_factory=set)  # nodes being read: an alias to one of them is a loop

    def read(self, node: Node, path: Path) -> Any:
        self.values[path] = _position(node)
        if len(self.values) > MAX_NODES or len(path) > MAX_DEPTH or id(node) in self.open:
            return self._refuse(node, path, "too many or too deeply nested values, or an alias that contains itself")
        if str(node.tag) not in _PLAIN_TAGS:
            return self._refuse(node, path, f"tag {_tag(node)!r} is not understood here", "write a plain value")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            assert isinstance(node, SequenceNode)  # noqa: S101 -- ruamel composes these three kinds only
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._refuse(
                    key,
                    path,
                    "a key must be plain text, not a list or a mapping",
                    "quote `{{ … }}` where it begins a value",
                )
                continue
            name = str(key.value)
            if name in found:
                first = self.keys[(*path, name)][0]
                self._refuse(
                    key, path, f"key `{name}` stands here twice, first in line {first}", "remove or rename one of them"
                )
                continue
            self.keys[(*path, name)] = _position(key)
            found[name] = self.read(value, (*path, name))
        return found

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if "\0" in text:
            return self._refuse(node, path, "contains the character NUL, which cannot be stored")
        if node.style in ("'", '"', "|", ">") or str(node.tag) == _PREFIX + "str":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.match(text) and len(text) <= 300:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.match(text):
            number = float(text)
            return (
                number
                if math.isfinite(number)
                else self._refuse(node, path, f"{text} is larger than a JSON number may be")
            )
        if _NOT_FINITE.match(text):
            return self._refuse(node, path, f"{text} is no JSON value", "write a number, or quote it to mean the text")
        return text

    def _refuse(self, node: Node, path: Path, message: str, hint: str = "") -> None:
        self.spoiled.append(path)
        self.problems.append(Problem(self.file, *_position(node), message, hint))


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _tag(node: Node) -> str:
    return str(node.tag).replace(_PREFIX, "!!")
