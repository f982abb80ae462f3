"""Why a condition could not be told, in the words of the rule: which path was missing, which kinds did not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from penstock.automations.expressions import Node

_ORDER = frozenset(["<", "<=", ">", ">="])


class _Unknown(Exception):
    """A part has no value, or none that can be told without calculating."""


class _Missing(_Unknown):
    """A part has no value.  reason: why, in words."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def explain_missing(tree: Node, source: str, variables: Mapping[str, Any], key: str) -> str:
    """Which path a missing key belongs to."""
    reasons = list(_reasons(tree, source, variables))
    for reason in reasons:  # of several missing paths some may lie in a branch that was not looked at
        if re.search(rf"\b{re.escape(key)}\W*` is missing", reason):
            return reason
    if reasons:
        return reasons[0]
    for node in tree.walk():
        if node.kind == "select" and node.value == key:
            return f"`{source[node.start : node.end]}` is missing"
    return f"`{key}` is missing"


def explain_mismatch(tree: Node, source: str, variables: Mapping[str, Any]) -> str:
    """Which values do not fit together; "" where it cannot be told."""
    for reason in _reasons(tree, source, variables):
        return reason
    for node in tree.walk():
        if reason := _of_operands(node, source, variables):
            return reason
    return ""


def _reasons(tree: Node, source: str, variables: Mapping[str, Any]) -> Iterator[str]:
    """Of each path that leads nowhere, those of `has` left out, which asks for just that."""
    if tree.kind == "call" and tree.value == "has":
        return
    if tree.kind in ("select", "index"):
        try:
            _value(tree, source, variables)
        except _Missing as error:
            yield error.reason
        except _Unknown:
            pass
    for child in tree.children:
        yield from _reasons(child, source, variables)


def _of_operands(node: Node, source: str, variables: Mapping[str, Any]) -> str:
    if node.kind == "binary" and node.value in _ORDER:
        left, right = (_told(child, source, variables) for child in node.children)
        if left and right:
            return f"{left} and {right} cannot be compared by `{node.value}`"
    wanted = node.children[:1] if node.kind == "choice" or (node.kind == "unary" and node.value == "!") else ()
    wanted = node.children if node.kind == "binary" and node.value in ("&&", "||") else wanted
    for child in wanted:
        told = _told(child, source, variables)
        if told and not told.endswith("(true)") and not told.endswith("(false)"):
            return f"{told} is neither true nor false"
    return ""


def _told(node: Node, source: str, variables: Mapping[str, Any]) -> str:
    try:
        return f"`{source[node.start : node.end]}` ({shown(_value(node, source, variables))})"
    except _Unknown:
        return ""


def _value(node: Node, source: str, variables: Mapping[str, Any]) -> Any:
    """What a path or a literal stands for.  Raises _Missing, _Unknown."""
    match node.kind:
        case "name" if node.value in variables:
            return variables[node.value]
        case "select":
            return _at(_value(node.children[0], source, variables), node.value, node, source)
        case "index":
            key = _value(node.children[1], source, variables)
            return _at(_value(node.children[0], source, variables), key, node, source)
        case "literal":
            return _literal(node.value)
    raise _Unknown


def _at(holder: Any, key: Any, node: Node, source: str) -> Any:
    path, parent = source[node.start : node.end], source[node.start : node.children[0].end]
    if isinstance(holder, Mapping) and isinstance(key, str):
        if key not in holder:
            raise _Missing(f"`{path}` is missing")
        return holder[key]
    if isinstance(holder, list) and isinstance(key, int) and not isinstance(key, bool):
        if not 0 <= key < len(holder):
            raise _Missing(f"`{path}` is missing: there are {len(holder)} elements")
        return holder[key]
    if holder is None or isinstance(holder, str | int | float | list):
        raise _Missing(f"`{path}` is missing: `{parent}` is {shown(holder)}")
    raise _Unknown


def _literal(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    if text[0] in "'\"":
        return text.strip(text[0])
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise _Unknown from None


def kind_of(value: Any) -> str:
    """The kind of a value, in words."""
    kinds: tuple[tuple[Any, str], ...] = (
        (type(None), "null"), (bool, "true or false"), (int | float, "a number"), (str, "text"), (list, "a list"),
        (Mapping, "a mapping"), (datetime, "a time"), (timedelta, "a span of time"), (bytes, "bytes"),
    )  # fmt: skip
    return next((words for kind, words in kinds if isinstance(value, kind)), "something else")


def shown(value: Any) -> str:
    """A value in words, cut short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the text "{value[:40]}{"…" if len(value) > 40 else ""}"'
    return kind_of(value)
