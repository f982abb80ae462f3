"""Arithmetic of conditions in which whole numbers and fractions mix, as they do in JSON: 9 and 9.0 are one number.

CEL keeps int and double apart and refuses `4.5 * 2`. An expression that it refuses so is evaluated once more with its
operators replaced by the functions here; all others never come this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from penstock.automations.diagnosis import kind_of
from penstock.automations.expressions import Node

MAX_TEXT = 64 << 10  # bytes of a text that a regular expression is looked for in
_NAMES = {"+": "__add", "-": "__subtract", "*": "__multiply", "/": "__divide", "%": "__remainder"}
_WORDS = {"+": "added", "-": "subtracted", "*": "multiplied", "/": "divided", "%": "divided"}
_INT64 = range(-(2**63), 2**63)


class Failed:
    """What a function gives the library instead of an exception, which it would log: no CEL value, hence an error."""


class Mixing:
    """The functions of one evaluation.  errors: why a calculation failed, in words."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def functions(self) -> dict[str, Callable[[Any, Any], Any]]:
        """By the names that `rewritten` uses."""
        return {name: self._function(operator) for operator, name in _NAMES.items()}

    def _function(self, operator: str) -> Callable[[Any, Any], Any]:
        def calculate(left: Any, right: Any) -> Any:
            try:
                return _calculated(operator, left, right)
            except ZeroDivisionError:
                self.errors.append("a division by zero")
            except OverflowError:
                self.errors.append("a number is too large")
            except TypeError:
                kinds = f"{kind_of(left)} and {kind_of(right)}"
                self.errors.append(f"{kinds} cannot be {_WORDS[operator]}")
            return Failed()

        return calculate


def _calculated(operator: str, left: Any, right: Any) -> Any:
    """Raises TypeError, ZeroDivisionError, OverflowError."""
    if not (_is_number(left) and _is_number(right)):
        return _others(operator, left, right)
    if isinstance(left, int) and isinstance(right, int):
        return _whole(operator, left, right)
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right
    return math.fmod(left, right) if right else _raise_zero()


def _raise_zero() -> float:
    raise ZeroDivisionError


def _whole(operator: str, left: int, right: int) -> int:
    """As CEL: division cuts off, the remainder has the sign of the dividend, 64 bits."""
    if operator in ("/", "%"):
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        found = quotient if operator == "/" else left - quotient * right
    else:
        found = left + right if operator == "+" else left - right if operator == "-" else left * right
    if found not in _INT64:
        raise OverflowError
    return found


def _others(operator: str, left: Any, right: Any) -> Any:
    """Texts and lists are joined; times and spans calculated with."""
    for kind in (str, bytes, list):
        if operator == "+" and isinstance(left, kind) and isinstance(right, kind):
            return left + right  # type: ignore[operator]  # both are of one kind
    times = isinstance(left, datetime | timedelta) and isinstance(right, datetime | timedelta)
    if times and operator in ("+", "-"):
        return left + right if operator == "+" else left - right
    raise TypeError


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _length(text: Any) -> Any:
    """Characters; the library's own `size` counts bytes."""
    return len(text)


def _in_zone(read: Callable[[datetime], int]) -> Callable[[Any, Any], Any]:
    """A part of a moment as the clocks of a time zone show it; the library knows UTC only."""

    def part(moment: Any, zone: Any) -> Any:
        try:
            return read(moment.astimezone(ZoneInfo(zone)))
        except (AttributeError, TypeError, ValueError, LookupError, OSError, OverflowError):
            return Failed()

    return part


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "__length": _length,
    "__too_long": lambda text: Failed(),
    "getFullYear": _in_zone(lambda moment: moment.year),
    "getMonth": _in_zone(lambda moment: moment.month - 1),
    "getDate": _in_zone(lambda moment: moment.day),
    "getDayOfMonth": _in_zone(lambda moment: moment.day - 1),
    "getDayOfWeek": _in_zone(lambda moment: (moment.weekday() + 1) % 7),
    "getDayOfYear": _in_zone(lambda moment: moment.timetuple().tm_yday - 1),
    "getHours": _in_zone(lambda moment: moment.hour),
    "getMinutes": _in_zone(lambda moment: moment.minute),
    "getSeconds": _in_zone(lambda moment: moment.second),
    "getMilliseconds": _in_zone(lambda moment: moment.microsecond // 1_000),
}


def rewritten(source: str, tree: Node) -> tuple[str, str | None]:
    """The source with `size` counting characters and bounded `matches`, and the same with arithmetic of ours (None: it
    has none)."""
    mixes = any(node.kind == "binary" and node.value in _NAMES for node in tree.walk())
    return _written(source, tree, mix=False), _written(source, tree, mix=True) if mixes else None


def _written(source: str, node: Node, *, mix: bool) -> str:
    """The source of a part; what is not replaced stays as it was written."""
    if mix and node.kind == "binary" and node.value in _NAMES:
        left, right = (_written(source, child, mix=mix) for child in node.children)
        return f"{_NAMES[node.value]}({left}, {right})"
    if node.kind == "call" and node.value == "size" and not _sized(node.children[0]):
        inner = _written(source, node.children[0], mix=mix)
        return f"(type({inner}) == string ? __length({inner}) : size({inner}))"
    if node.kind == "call" and node.value == "matches":
        text, pattern = (_written(source, child, mix=mix) for child in node.children)
        return f"(size({text}) > {MAX_TEXT} ? __too_long({text}) : ({text}).matches({pattern}))"
    pieces, place = [], node.start
    for child in node.children:
        pieces += [source[place : child.start], _written(source, child, mix=mix)]
        place = child.end
    return "".join(pieces) + source[place : node.end]


def _sized(node: Node) -> bool:
    """Whether a size is asked for inside, so that writing it twice would grow without end."""
    return any(each.kind == "call" and each.value == "size" for each in node.walk())
