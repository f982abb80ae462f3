"""What a person fills in with a decision, against the JSON Schema that the request carries."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from penstock.events.errors import PenstockError


class FormError(PenstockError, ValueError):
    """What was filled in does not fit.

    problems: one sentence for each field at fault, with its name in front.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def check_form(schema: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Whether values fit the schema of an object.  Raises FormError naming each field."""
    from jsonschema import Draft202012Validator  # here: it takes long to import, and few decisions have a form

    problems = _unknown(schema, values)
    validator = Draft202012Validator(dict(schema), format_checker=_formats())
    for error in sorted(validator.iter_errors(dict(values)), key=lambda each: [str(part) for part in each.path]):
        place = ".".join(map(str, error.path))
        if error.validator == "required" and isinstance(error.instance, dict):
            missing = [name for name in error.validator_value if name not in error.instance]
            problems += [f"{'.'.join(filter(None, (place, name)))}: it is missing" for name in missing]
        else:
            problems.append(f"{place}: {error.message}" if place else error.message)
    if problems:
        raise FormError(list(dict.fromkeys(problems)))


def from_text(schema: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Values that were typed: a field that takes no text is read as JSON (`3`, `true`, `["a"]`), others stay text."""
    fields = schema.get("properties", {})
    return {name: _read(fields.get(name, {}), schema, text) for name, text in values.items()}


def _read(field: Mapping[str, Any], schema: Mapping[str, Any], text: str) -> Any:
    if "string" in _kinds(field, schema):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the schema says what is wrong with it


def _kinds(field: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a field takes, as far as the schema names them."""
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        return _kinds(schema.get("$defs", {}).get(name, {}), schema)
    named = field.get("type", [])
    found = {named} if isinstance(named, str) else set(named)
    found |= {"string" for value in field.get("enum", [field.get("const")]) if isinstance(value, str)}
    for each in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        found |= _kinds(each, schema)
    return found


def _unknown(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """A name that the form has not is a slip, and would be dropped without a word."""
    fields = list(schema.get("properties", {}))
    if schema.get("additionalProperties") or schema.get("patternProperties"):
        return []
    found = []
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(fields)}"
            found.append(f"{name}: the form has no such field; {hint}")
    return found


@cache
def _formats() -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker()

    @checker.checks("date-time", raises=ValueError)
    def _is_moment(value: object) -> bool:
        return not isinstance(value, str) or bool(datetime.fromisoformat(value))

    return checker
