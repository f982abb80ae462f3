"""A flow's parameters against the JSON Schema that its worker has registered: pure, and before a run exists.

The schema is stricter than the flow itself, which makes 8 of "8": what comes here is typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from penstock.automations.problems import did_you_mean
from penstock.events.errors import PenstockError

_LONGEST = 200  # characters of a value that are told
_FORMATS = FormatChecker(("date", "uuid", "ipv4", "ipv6"))


class ParametersError(PenstockError):
    """Parameters do not fit the flow.  problems: one sentence for each, with the parameter's name and value."""

    def __init__(self, flow: str, problems: Iterable[str]) -> None:
        self.flow, self.problems = flow, tuple(problems)
        super().__init__(f"parameters of flow {flow!r}: {'; '.join(self.problems)}")


def check_parameters(flow: str, schema: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises ParametersError with all that is wrong."""
    problems = _unknown(schema, given)
    known = {name: value for name, value in given.items() if name in _properties(schema)} if problems else given
    validator = Draft202012Validator(schema, format_checker=_FORMATS)
    problems += [
        _told(error)
        for error in sorted(validator.iter_errors(known), key=lambda error: [str(part) for part in error.path])
    ]
    if problems:
        raise ParametersError(flow, problems)


def parse_parameter(flow: str, schema: Mapping[str, Any], name: str, text: str) -> Any:
    """The value that a text (of a command line) stands for: JSON where the schema wants it, else the text itself.

    Where the schema takes both, what is JSON and fits is JSON.  Raises ParametersError.
    """
    unknown = _unknown(schema, {name: text})
    if unknown:
        raise ParametersError(flow, unknown)
    wanted = {**_properties(schema).get(name, {}), "$defs": schema.get("$defs", {})}
    validator = Draft202012Validator(wanted, format_checker=_FORMATS)
    as_text = validator.is_valid(text)
    if as_text and wanted.get("type") == "string":
        return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        value = text
    if validator.is_valid(value) or not as_text:
        error = next(iter(validator.iter_errors(value)), None)
        if error is not None:
            raise ParametersError(flow, [_told(error, name)])
        return value
    return text


def _unknown(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    known = _properties(schema)
    if schema.get("additionalProperties", True) is not False:
        return []
    return [f"there is no parameter {name!r}{_hint(name, known)}" for name in given if name not in known]


def _hint(name: str, known: Mapping[str, Any]) -> str:
    hint = did_you_mean(name, known)
    return f" ({hint})" if hint else ", it takes none" if not known else ""


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema.get("properties", {})
    return found


def _told(error: ValidationError, name: str = "") -> str:
    """One sentence: which parameter, which value, what is wanted."""
    if error.validator == "required" and not error.path and not name:
        return error.message.replace("is a required property", "is missing")
    path = [*([name] if name else []), *error.absolute_path]
    where = f"{path[0]!r}" + "".join(f"[{part!r}]" for part in path[1:])
    return f"{where} is {_shortened(json.dumps(error.instance, ensure_ascii=False))}, {_wanted(error)}"


def _wanted(error: ValidationError) -> str:
    value: Any = error.validator_value
    if error.validator == "required":
        return error.message.replace("is a required property", "is missing")
    if error.validator == "type":
        kinds = value
        return f"not of type {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
    if error.validator == "anyOf" and error.context:
        parts = dict.fromkeys(_wanted(each) for each in error.context)
        return " and ".join(parts)
    if error.validator == "enum":
        return f"not one of {', '.join(json.dumps(each) for each in value)}"
    return f"which does not fit {error.validator} {_shortened(json.dumps(value))}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
