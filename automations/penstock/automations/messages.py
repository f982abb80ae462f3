"""pydantic's errors in the words of the person who writes rules, at the position in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, get_args

from pydantic import BaseModel, Tag, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from penstock.automations.documents import Document
from penstock.automations.durations import format_duration
from penstock.automations.models import ACTIONS, LATER_ACTIONS, AutomationModel, Keys, When
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.resources import DRIVERS, LATER_DRIVERS, LATER_PRESETS, PRESETS
from penstock.automations.when import OUTERMOST, Selection, Trigger

_PATTERNS = {
    r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$": "is no name: letters, digits and dashes only (`cold-chain`)",
    r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$": "is no name: letters, digits, dashes, dots and _ only",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "cannot be named in a template: letters, digits and _ only",
    r"^user/.+$": "is no person; write `user/NAME`",
    r"^(user|group)/.+$": "is neither a person nor a group; write `user/NAME` or `group/NAME`",
    r"^[a-z][a-z0-9+.-]*://.+$": "is no URL; write e.g. `https://example.com`",
    r"^([A-Za-z_][\w.]*:)?[A-Za-z0-9_][A-Za-z0-9_-]*$": "names no flow; write `module:flow` (`reroute:reroute`)",
}
_NOT_YET = "is not supported yet by this version of Penstock"


def validate(kind: Any, value: Any, document: Document, path: Path) -> tuple[Any, list[Problem]]:
    """`value` as an instance of `kind` (a model or an annotated union), or None and what is wrong with it."""
    try:
        return _adapter(kind).validate_python(value), []
    except ValidationError as error:
        return None, list(_problems(error, kind, document, path))


def salvage(kind: Any, value: Any) -> Any:
    """`value` as a `kind`, without the keys that are at fault, so that the rest is checked too; None if it cannot be.

    What comes back must only be looked at, never used.
    """
    for _ in range(3):  # a key that is left out can bring another mistake to light
        try:
            return _adapter(kind).validate_python(value)
        except ValidationError as error:
            value = _pruned(value, error)
    return None


def _pruned(value: Any, error: ValidationError) -> Any:
    value = deepcopy(value)
    for each in error.errors(include_url=False):
        _remove(value, _plain(each["loc"]))
    return value


def _remove(value: Any, path: Path) -> None:
    """Takes out the key at `path`, or the closest one above it where that is an element of a list."""
    holder: tuple[dict[Any, Any], Any] | None = None
    for part in path:
        if isinstance(value, dict) and part in value:
            holder, value = (value, part), value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
    if holder is not None:
        holder[0].pop(holder[1], None)


_ADAPTERS: dict[
    int, tuple[Any, TypeAdapter[Any]]
] = {}  # by the identity of an annotation, which is kept alive beside it


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Building one takes a millisecond, and there may be ten thousand rules."""
    if id(kind) not in _ADAPTERS:
        _ADAPTERS[id(kind)] = (kind, TypeAdapter(kind))
    return _ADAPTERS[id(kind)][1]


def show(value: object) -> str:
    """A value in words, cut short."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= 60 else value[:59] + '…', ensure_ascii=False)}"
    return "nothing" if value is None else "a list" if isinstance(value, list | tuple) else "a mapping"


def unknown_key(
    document: Document, path: Path, key: str, known: Mapping[str, Any], later: frozenset[str], noun: str
) -> Problem:
    """An unknown key, or one of a later version."""
    if key in later:
        return document.problem((*path, key), f"`{key}` {_NOT_YET}", "remove it", at="key")
    return document.problem((*path, key), f"unknown key `{key}`{noun}", did_you_mean(key, known), at="key")


def _problems(error: ValidationError, kind: Any, document: Document, base: Path) -> Iterator[Problem]:
    details = error.errors(include_url=False)
    strange = {_plain(each["loc"])[:-1] for each in details if each["type"] == "extra_forbidden"}
    for each in details:
        loc = _plain(each["loc"])
        if each["type"] == "missing" and loc[:-1] in strange and _explains(details, each, kind):
            continue  # the unknown key beside it is what was meant
        if each["type"] == "too_short" and len(each["input"]) >= each.get("ctx", {}).get("min_length", 0):
            continue  # its elements are at fault, and told
        yield _problem(each, kind, document, (*base, *loc))


def _explains(details: list[ErrorDetails], missing: ErrorDetails, kind: Any) -> bool:
    """Whether an unknown key beside a missing one is a misspelling of it, or a form of a later version."""
    *parent, wanted = missing["loc"]
    beside = [
        str(each["loc"][-1])
        for each in details
        if each["type"] == "extra_forbidden" and list(each["loc"][:-1]) == parent
    ]
    later = _model_at(kind, tuple(parent)).later
    return any(
        key in later or f"`{wanted}`" in did_you_mean(key, _fields(_model_at(kind, tuple(parent)))) for key in beside
    )


def _problem(each: ErrorDetails, kind: Any, document: Document, path: Path) -> Problem:
    if each["type"] == "extra_forbidden":
        model = _model_at(kind, each["loc"][:-1])
        if issubclass(model, Trigger | Selection) and (problem := _misplaced(path, model, document)):
            return problem
        return unknown_key(document, path[:-1], str(path[-1]), _fields(model), model.later, _noun(each["loc"][:-1]))
    if each["type"] == "missing":
        return document.problem(path[:-1], f"`{path[-1]}` is missing{_noun(each['loc'][:-1])}", f"add `{path[-1]}: …`")
    if each["type"].startswith("union_tag"):
        return _union(each, document, path)
    if each["type"] == "template":
        context = each["ctx"]
        return document.problem((*path, *context.get("path", ())), context["reason"], context["hint"])
    if path[-1:] == ("[key]",):  # pydantic's way to say that the key itself is at fault
        return document.problem(path[:-1], *_words(each, _named(path[:-1])), at="key")
    return document.problem(path, *_words(each, _named(path)))


def _misplaced(path: Path, model: type[Keys], document: Document) -> Problem | None:
    """A key of the rule inside `when`, or one of the outermost `when` further inside."""
    key, place = path[-1], path[-2]
    if model is not When and key in OUTERMOST:
        message, hint = f"`{key}` belongs to the whole rule", "write it in the outermost `when`"
    elif key in _fields(AutomationModel):
        message, hint = f"`{key}` does not belong inside `when`", "write it beside `when`"
    elif issubclass(model, Selection) and key in _fields(Trigger):
        message, hint = f"`{key}` does not belong inside `{place}`", f"write it beside `{place}`"
    else:
        return None
    return document.problem(path, message, hint, at="key")


def _union(each: ErrorDetails, document: Document, path: Path) -> Problem:
    value = each["input"]
    if not isinstance(value, dict):
        return document.problem(path, f"must be a mapping, not {show(value)}", "write `key: value` pairs")
    if path[-1] == "verify":
        return _choice(value, "preset", PRESETS, LATER_PRESETS, document, path)
    if path[0] == "sensors":
        return _choice(value, "driver", DRIVERS, LATER_DRIVERS, document, path)
    return _action(value, document, path)


def _choice(
    value: dict[str, Any], key: str, known: tuple[str, ...], later: frozenset[str], document: Document, path: Path
) -> Problem:
    """The key that says which of several shapes a mapping has is missing or unknown."""
    if key not in value:
        return document.problem(path, f"`{key}` is missing", f"add `{key}:` with one of {', '.join(known)}")
    said = value[key]
    if not isinstance(said, str):
        return document.problem((*path, key), f"`{key}` must be text, not {show(said)}", f"known: {', '.join(known)}")
    message = f"{key} `{said}` {_NOT_YET}" if said in later else f"unknown {key} `{said}`"
    return document.problem((*path, key), message, did_you_mean(said, known))


def _action(value: dict[str, Any], document: Document, path: Path) -> Problem:
    found = [key for key in value if key in ACTIONS]
    if len(found) > 1:
        return document.problem(
            (*path, found[1]), f"one step has two actions, `{found[0]}` and `{found[1]}`", "write two steps", at="key"
        )
    for key in value:
        if key in LATER_ACTIONS or key == "wait":
            return document.problem(
                (*path, key), f"the action `{key}` {_NOT_YET}", f"known: {', '.join(ACTIONS)}", at="key"
            )
    first = next(iter(value), "")
    hint = next(
        (hint for hint in (did_you_mean(key, ACTIONS) for key in value) if hint.startswith("did")),
        did_you_mean(first, ACTIONS),
    )
    return document.problem((*path, first) if first else path, f"unknown action `{first}`", hint, at="key")


def _words(each: ErrorDetails, name: str) -> tuple[str, str]:
    value, context, kind = each["input"], each.get("ctx", {}), each["type"]
    match kind:
        case "string_type":
            return f"{name} must be text, not {show(value)}", f'quote it: "{json.dumps(value)}"' if isinstance(
                value, int | float
            ) else ""
        case "bool_type":
            return f"{name} must be `true` or `false`, not {show(value)}", ""
        case "int_type" | "int_from_float" | "float_type":
            return f"{name} must be a{' whole' if kind != 'float_type' else ''} number, not {show(value)}", ""
        case "tuple_type" if name in ("`event`", "`per`"):
            return f"{name} must be text, or a list of texts, not {show(value)}", ""
        case "tuple_type" | "list_type":
            return f"{name} must be a list, not {show(value)}", "write each element on a line of its own, after a dash"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{name} must be a mapping (`key: value`), not {show(value)}", ""
        case "literal_error":
            return f"{name} cannot be {show(value)}", did_you_mean(
                value, context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            )
        case "value_error":
            return f"{name}: {context['error']}", ""
        case "string_pattern_mismatch":
            wrong = _PATTERNS.get(context["pattern"], "does not have the right form")
            return f"{show(value).removeprefix('the text ')} {wrong}", ""
        case "string_too_short" | "too_short":
            return f"{name} must not be empty", ""
        case "string_too_long":
            return f"{name} is longer than {context['max_length']} characters", ""
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            bound = next(iter(context.values()))
            if isinstance(value, str) and isinstance(bound, int):  # a duration, by its number of microseconds
                bound = format_duration(bound)
            words = {
                "greater_than": "more than",
                "greater_than_equal": "at least",
                "less_than": "less than",
                "less_than_equal": "at most",
            }
            return f"{name} must be {words[kind]} {bound}, not {value}", ""
    return f"{name}: {each['msg']}", ""


def _plain(loc: tuple[str | int, ...]) -> Path:
    """Without the marks of unions, which are in no file."""
    return tuple(part for part in loc if not _is_tag(part))


def _is_tag(part: object) -> bool:
    return isinstance(part, str) and part.startswith("«")


def _named(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    return (
        f"`{names[-1]}`"
        if names and not isinstance(path[-1], int)
        else f"each of `{names[-1]}`"
        if names
        else "the file"
    )


def _noun(loc: tuple[str | int, ...]) -> str:
    names = [str(part).strip("«»") for part in loc if isinstance(part, str)]
    return f" in `{names[-1]}`" if names else ""


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_at(kind: Any, loc: tuple[str | int, ...]) -> type[Keys]:
    """The model that a location of pydantic's leads to, from an annotation."""
    for part in loc:
        if _is_tag(part):
            kind = next(member for member in _members(kind) if Tag(str(part)) in getattr(member, "__metadata__", ()))
        elif isinstance(part, str):
            kind = _fields(_model_of(kind))[part].annotation
    return _model_of(kind)


def _members(kind: Any) -> Iterator[Any]:
    """Every annotation inside an annotation, depth first."""
    yield kind
    for inner in get_args(kind):
        yield from _members(inner)


def _model_of(kind: Any) -> type[Keys]:
    return next(member for member in _members(kind) if isinstance(member, type) and issubclass(member, Keys))
