"""From the JSON form of a pattern to branches of fields; everything else is refused with its path and the reason."""

from __future__ import annotations

import marshal
import math
from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

from penstock.triggers import operators as op
from penstock.triggers.addresses import block, packed
from penstock.triggers.errors import PatternError
from penstock.triggers.fields import Branch, Field

MAX_DEPTH = 100  # objects inside objects
MAX_BRANCHES = 512  # what `$or`s multiply out to
MAX_FIELDS = 8_192  # fields over all branches
MAX_VALUES = 10_000  # plain values of one field
MAX_PREDICATES = 256  # other operators of one field, lists inside anything-but included
MAX_STARS = 64  # of one wildcard

_RESERVED = frozenset(
    [
        "exactly",
        "equals-ignore-case",
        "prefix",
        "suffix",
        "anything-but",
        "exists",
        "wildcard",
        "numeric",
        "cidr",
        "regex",
        "not-wildcard",
        "not-equals-ignore-case",
        "date-after",
        "date-on-or-after",
        "date-before",
        "date-on-or-before",
        "in-date-range",
        "ip-address-in-range",
        "ip-address-not-in-range",
        "=",
        "<",
        "<=",
        ">",
        ">=",
    ]
)  # an object with one of these keys is no branch of a `$or`
_Draft = dict[str, Field]

_LATELY = 8_192  # compiled fields kept twice over, so that equal ones of many patterns are one object
_BRIEF = 512  # bytes that the alternatives of such a field may take
_Kept = dict[tuple[str, bytes], Field]
_lately: list[_Kept] = [{}, {}]  # those asked for of late, and those before; the latter go when the former are many


def parse(pattern: object) -> tuple[Branch, ...]:
    """The branches of a pattern, `$or` multiplied out.  Raises PatternError."""
    if not isinstance(pattern, Mapping):
        raise PatternError("", f"a pattern is an object of fields, not {_kind(pattern)}")
    drafts = _object(pattern, "", [{}], 1)  # one draft a branch
    if len(drafts) == 1:
        (draft,) = drafts
        return (tuple([draft[path] for path in sorted(draft)]),)
    return tuple(tuple(draft[path] for path in sorted(draft)) for draft in drafts)


def _object(content: Mapping[object, object], prefix: str, drafts: list[_Draft], depth: int) -> list[_Draft]:
    """Adds the fields of an object to each draft.  prefix: its path with a dot behind it, "" for the outermost one."""
    path = prefix[:-1]
    if depth > MAX_DEPTH:
        raise PatternError(_brief(path), f"nested deeper than {MAX_DEPTH} objects; name the field by a shorter path")
    if not content:
        raise PatternError(path, "an empty object asks for nothing; leave it out or name a field")
    for key, value in content.items():
        if not isinstance(key, str):
            raise PatternError(path, f"a key is a string, not {_kind(key)}")
        if key == "$or" and _is_or(value):
            drafts = _or(value, prefix, drafts, depth)
            continue
        below = prefix + key
        # asking for the exact type first is several times as quick as asking for a Mapping
        if type(value) is not list and (type(value) is dict or isinstance(value, Mapping)):
            drafts = _object(value, f"{below}.", drafts, depth + 1)
        elif isinstance(value, list | tuple):
            field = _field(value, below)
            for draft in drafts:
                draft[below] = field
        else:
            raise PatternError(
                below, f"must be an object or a list of alternatives, not {_kind(value)}; write [{_show(value)}]"
            )
    if len(drafts) > 1:
        _bound(path, drafts)
    return drafts


def _is_or(value: object) -> bool:
    """Two or more objects, none of which looks like an operator; anything else is a field of that name."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 1
        and all(isinstance(branch, Mapping) and not any(_reserved(key) for key in branch) for branch in value)
    )


def _reserved(key: object) -> bool:
    return isinstance(key, str) and key in _RESERVED


def _or(value: object, prefix: str, drafts: list[_Draft], depth: int) -> list[_Draft]:
    path = prefix[:-1]
    assert isinstance(value, list | tuple)  # noqa: S101 - _is_or said so; for the type checker
    if len(drafts) * len(value) > MAX_BRANCHES:
        _refuse_branches(path)
    found: list[_Draft] = []
    for content in value:
        found += _object(content, prefix, [dict(draft) for draft in drafts], depth + 1)
        _bound(path, found)
    return found


def _bound(path: str, drafts: list[_Draft]) -> None:
    if len(drafts) > MAX_BRANCHES or (len(drafts) > 1 and sum(map(len, drafts)) > MAX_FIELDS):
        _refuse_branches(path)


def _refuse_branches(path: str) -> None:
    raise PatternError(
        _brief(path),
        f"too complex: its `$or`s multiply out to more than {MAX_BRANCHES} branches or {MAX_FIELDS} fields;"
        " split it into several patterns",
    )


def _field(alternatives: list[object] | tuple[object, ...], path: str) -> Field:
    """The field of a path; one that was asked for lately is the same object, which spares memory."""
    listed: Any = alternatives
    try:
        name = path, marshal.dumps(listed, 2)
    except ValueError:  # types that no JSON decoder makes
        return _compiled(alternatives, path)
    late, before = _lately
    field = late.get(name)
    if field is None:
        field = before.get(name) or _compiled(alternatives, path)
        if len(name[1]) < _BRIEF:
            if len(late) >= _LATELY:
                _lately[:] = late, before = {}, late
            late[name] = field
    return field


def _compiled(alternatives: list[object] | tuple[object, ...], path: str) -> Field:
    if not alternatives:
        raise PatternError(path, "an empty list matches nothing; name at least one alternative")
    exact: dict[object, None] = {}
    predicates: list[op.Predicate] = []
    absent = False
    for item in alternatives:
        if type(item) is not str and (type(item) is dict or isinstance(item, Mapping)):
            found = _expression(item, path)
            if found is None:
                absent = True
            elif isinstance(found, str):
                exact[found] = None
            else:
                predicates.append(found)
        else:
            _value(item, path, exact, predicates)
    if len(exact) > MAX_VALUES or sum(map(_weight, predicates)) > MAX_PREDICATES:
        raise PatternError(
            path,
            f"too complex: more than {MAX_VALUES} values or {MAX_PREDICATES} other operators in one list;"
            " split it into several patterns",
        )
    return Field.of(path, tuple(exact), tuple(predicates), absent)


def _weight(predicate: op.Predicate) -> int:
    return len(predicate.inner) if isinstance(predicate, op.NoneOf) else 1


def _value(item: object, path: str, exact: dict[object, None], predicates: list[op.Predicate]) -> None:
    if isinstance(item, str):
        address = packed(item)
        if address is None:
            exact[_shared(item)] = None
        else:
            predicates.append(op.Address(item, address))
    elif item is None or isinstance(item, bool):
        exact[op.token(item)] = None
    elif isinstance(item, int) and not op.comparable(item):
        predicates.append(op.BigInteger(item))
    elif isinstance(item, int | float):
        exact[_finite(item, path)] = None
    else:
        raise PatternError(
            path, f"an alternative is a string, number, true, false, null or an operator, not {_kind(item)}"
        )


def _expression(item: Mapping[object, object], path: str) -> op.Predicate | str | None:
    """One operator; a string for `exactly`, None for `exists: false`."""
    name, argument = _only(item, path)
    if name == "exactly":
        return _text(argument, path, name)
    if name == "exists":
        if not isinstance(argument, bool):
            raise PatternError(path, f"exists takes true or false, not {_show(argument)}")
        return op.Present() if argument else None
    build = _BUILDERS.get(name)
    if build is None:
        raise PatternError(path, f"unknown operator {name!r}; there are {', '.join(_OPERATORS)}")
    return build(argument, path)


def _only(item: Mapping[object, object], path: str) -> tuple[str, object]:
    if len(item) != 1:
        keys = ", ".join(sorted(map(str, item))) or "none"
        raise PatternError(
            path, f"an operator is an object with one key, found {keys}; put each into an object of its own"
        )
    ((name, argument),) = item.items()
    return str(name), argument


def _text(argument: object, path: str, name: str) -> str:
    if not isinstance(argument, str):
        raise PatternError(path, f"{name} takes a string, not {_kind(argument)}")
    return _shared(argument)


def _shared(text: str) -> str:
    """The text as the one object that all patterns share, which is then more often in the processor's cache."""
    plain = str(text)
    return intern(plain) if type(plain) is str else plain


def _affix(name: str, build: Callable[[str], op.Predicate]) -> Callable[[object, str], op.Predicate]:
    def make(argument: object, path: str) -> op.Predicate:
        if isinstance(argument, Mapping):
            inner, text = _only(argument, path)
            if inner != "equals-ignore-case":
                raise PatternError(path, f"inside {name} only equals-ignore-case is known, not {inner!r}")
            return op.IgnoreCase.of(_text(text, path, f"{name} with equals-ignore-case"), name)
        return build(_text(argument, path, name))

    return make


def _wildcard(argument: object, path: str) -> op.Wildcard:
    text = _text(argument, path, "wildcard")
    parts, part, chars = [], "", iter(text)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("*", "\\"):
                raise PatternError(path, rf"wildcard {text!r}: after a backslash only * or \ may stand")
            part += escaped
        elif char == "*":
            parts.append(part)
            part = ""
        else:
            part += char
    parts.append(part)
    if any(not part for part in parts[1:-1]):
        raise PatternError(path, f"wildcard {text!r}: two stars in a row say no more than one; write one")
    if len(parts) - 1 > MAX_STARS:
        raise PatternError(path, f"too complex: a wildcard of more than {MAX_STARS} stars; use fewer")
    return op.Wildcard(text, tuple(map(_shared, parts)))


def _numeric(argument: object, path: str) -> op.Range:
    if not isinstance(argument, list | tuple) or len(argument) not in (2, 4):
        raise PatternError(path, 'numeric takes ["=", n], one bound such as [">", n], or two such as [">=", a, "<", b]')
    sign, number = argument[0], _number(argument[1], path)
    if sign not in ("=", "<", "<=", ">", ">="):
        raise PatternError(path, f"numeric knows =, <, <=, > and >=, not {_show(sign)}")
    if len(argument) == 2:
        return op.Range.of((sign, number))
    until, top = argument[2], _number(argument[3], path)
    if sign not in (">", ">=") or until not in ("<", "<="):
        raise PatternError(path, "a numeric range names the lower bound first (> or >=), then the upper one (< or <=)")
    if not number < top:
        raise PatternError(path, f"a numeric range needs its lower bound below the upper one, not {number} and {top}")
    return op.Range.of((sign, number, until, top))


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PatternError(path, f"expected a number, not {_kind(value)}")
    if isinstance(value, int) and not op.comparable(value):
        raise PatternError(path, f"{_show(value)} is no exact double and cannot be compared; use it as a plain value")
    return _finite(value, path)


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise PatternError(path, f"{value} is no JSON number")
    return value


def _cidr(argument: object, path: str) -> op.Block:
    text = _text(argument, path, "cidr")
    try:
        return op.Block(text, *block(text))
    except ValueError as error:
        raise PatternError(path, f"cidr: {error}") from None


def _anything_but(argument: object, path: str) -> op.Predicate:
    if isinstance(argument, Mapping):
        name, inner = _only(argument, path)
        if name not in ("prefix", "suffix", "wildcard", "equals-ignore-case"):
            raise PatternError(
                path, f"inside anything-but there may be prefix, suffix, wildcard or equals-ignore-case, not {name!r}"
            )
        texts = [
            _text(text, path, f"anything-but {name}")
            for text in (inner if isinstance(inner, list | tuple) else [inner])
        ]
        if not texts or (name != "equals-ignore-case" and "" in texts):
            raise PatternError(path, f"anything-but {name} takes a string that is not empty, or a list of such")
        return op.NoneOf(name, tuple(_BUILDERS[name](text, path) for text in texts), inner)
    values = argument if isinstance(argument, list | tuple) else [argument]
    strings = bool(values) and all(isinstance(value, str) for value in values)
    if strings or (values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)):
        if len(values) > MAX_VALUES:
            raise PatternError(path, f"too complex: anything-but of more than {MAX_VALUES} values")
        return op.AnythingBut.of(tuple(values if strings else (_number(value, path) for value in values)), argument)
    raise PatternError(path, "anything-but takes a string, a number, or a list of only strings or only numbers")


_BUILDERS: dict[str, Callable[[object, str], op.Predicate]] = {
    "prefix": _affix("prefix", op.Prefix),
    "suffix": _affix("suffix", op.Suffix),
    "equals-ignore-case": lambda argument, path: op.IgnoreCase.of(_text(argument, path, "equals-ignore-case")),
    "wildcard": _wildcard,
    "numeric": _numeric,
    "cidr": _cidr,
    "anything-but": _anything_but,
}
_OPERATORS = ("exactly", "exists", *_BUILDERS)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def _show(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "a number of many digits"
    return text if len(text) < 60 else f"{text[:57]}..."


def _brief(path: str) -> str:
    return path if len(path) < 120 else f"{path[:117]}..."
