"""The pattern language in the plainest form that can be read: no index, no compilation, exponential where it likes.

It is the oracle of the property tests and shares no code with penstock.triggers. Written from the language's rules:
every leaf of the event is listed with the array elements it lies in, and the fields of a branch, in order of path, try
every leaf whose elements agree with those chosen so far.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

OPERATORS = {
    "exactly",
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "exists",
    "cidr",
}
Membership = dict[int, int]


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """Whether a valid pattern matches an event."""
    if not isinstance(event, dict):
        return False
    leaves = list(listed(event, "", {}, [0]))
    return any(branch_matches(sorted(branch.items()), leaves, {}) for branch in branches(pattern))


def branches(pattern: dict[str, Any]) -> list[dict[str, list[Any]]]:
    found: list[dict[str, list[Any]]] = [{}]

    def walk(content: dict[str, Any], prefix: str, into: list[dict[str, list[Any]]]) -> list[dict[str, list[Any]]]:
        for key, value in content.items():
            if key == "$or" and is_or(value):
                into = [each for option in value for each in walk(option, prefix, [dict(draft) for draft in into])]
            elif isinstance(value, dict):
                into = walk(value, f"{prefix}{key}.", into)
            else:
                into = [{**draft, prefix + key: value} for draft in into]
        return into

    return walk(pattern, "", found)


def is_or(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(item, dict) and not OPERATORS & item.keys() for item in value)
    )


def listed(
    value: Any, prefix: str, membership: Membership, counter: list[int]
) -> Iterator[tuple[str, Any, Membership]]:
    """(path, scalar, array elements) of every leaf."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from listed(item, f"{prefix}.{key}" if prefix else key, membership, counter)
    elif isinstance(value, list):
        counter[0] += 1
        array = counter[0]
        for index, item in enumerate(value):
            inside = {**membership, array: index} if isinstance(item, dict | list) else membership
            yield from listed(item, prefix, inside, counter)
    else:
        yield prefix, value, membership


def agree(one: Membership, other: Membership) -> bool:
    return all(other.get(array, index) == index for array, index in one.items())


def branch_matches(
    fields: list[tuple[str, list[Any]]], leaves: list[tuple[str, Any, Membership]], chosen: Membership
) -> bool:
    if not fields:
        return True
    (path, alternatives), *rest = fields
    here = [(value, inside) for name, value, inside in leaves if name == path and agree(chosen, inside)]
    if {"exists": False} in alternatives and not here and branch_matches(rest, leaves, chosen):
        return True
    return any(
        branch_matches(rest, leaves, {**chosen, **inside})
        for value, inside in here
        if any(holds(alternative, value) for alternative in alternatives)
    )


def holds(alternative: Any, value: Any) -> bool:
    if not isinstance(alternative, dict):
        return equal(alternative, value)
    ((operator, argument),) = alternative.items()
    if operator == "exists":
        return bool(argument)
    if operator == "anything-but":
        if isinstance(argument, dict):
            ((inner, texts),) = argument.items()
            return not any(holds({inner: text}, value) for text in (texts if isinstance(texts, list) else [texts]))
        return not any(same(each, value) for each in (argument if isinstance(argument, list) else [argument]))
    if operator == "numeric":
        return number(value) and in_range(argument, value)
    return isinstance(value, str) and text_holds(operator, argument, value)


def text_holds(operator: str, argument: Any, value: str) -> bool:
    if isinstance(argument, dict):
        text = argument["equals-ignore-case"]
        part = value[: len(text)] if operator == "prefix" else value[max(len(value) - len(text), 0) :]
        return caseless(text, part)
    if operator == "exactly":
        return bool(value == argument)
    if operator == "prefix":
        return value.startswith(argument)
    if operator == "suffix":
        return value.endswith(argument)
    if operator == "equals-ignore-case":
        return caseless(argument, value)
    if operator == "cidr":
        address = ip(value)
        network = ipaddress.ip_network(argument, strict=False)
        return address is not None and (address in network or (str(network) == "0.0.0.0/0" and address.version == 6))
    return wildcard(argument, value)


def wildcard(pattern: str, value: str) -> bool:
    parts: list[str] = [""]
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            parts.append("")
        else:
            parts[-1] += next(chars) if char == "\\" else char
    return re.fullmatch(".*".join(map(re.escape, parts)), value, re.DOTALL) is not None


def caseless(pattern: str, value: str) -> bool:
    return len(pattern) == len(value) and all(v in (p.lower(), p.upper()) for p, v in zip(pattern, value, strict=True))


def equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str) and ip(wanted) is not None:
        return ip(wanted) == ip(value)
    return same(wanted, value)


def same(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None or value is None:
        return wanted is value
    return isinstance(wanted, str) == isinstance(value, str) and bool(wanted == value)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_range(terms: list[Any], value: float) -> bool:
    signs = {"=": value == terms[1], "<": value < terms[1], "<=": value <= terms[1]}
    signs |= {">": value > terms[1], ">=": value >= terms[1]}
    return bool(signs[terms[0]]) and (len(terms) == 2 or in_range(terms[2:], value))


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
