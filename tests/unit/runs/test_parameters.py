"""Parameters are checked by the flow's schema before there is a run, and typed by it on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.services.parameters import ParametersError, check_parameters, parse_parameter

SCHEMA: dict[str, Any] = {
    "$defs": {"Stop": {"type": "object", "properties": {"km": {"type": "integer"}}, "required": ["km"]}},
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "truck": {"type": "string"},
        "n": {"type": "integer", "default": 3},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "stop": {"$ref": "#/$defs/Stop"},
        "amount": {"anyOf": [{"type": "number"}, {"type": "string"}]},
        "colour": {"enum": ["red", "green"], "type": "string"},
        "anything": {},
    },
    "required": ["truck"],
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("truck", "7", "7"),
        ("truck", '"7"', '"7"'),
        ("truck", "", ""),
        ("n", "7", 7),
        ("n", " 7\n", 7),
        ("when", "2026-11-21", "2026-11-21"),
        ("when", "null", None),
        ("stop", '{"km": 3}', {"km": 3}),
        ("amount", "3.5", 3.5),
        ("amount", "three", "three"),
        ("colour", "red", "red"),
        ("anything", "[1, 2]", [1, 2]),
        ("anything", "[1, 2", "[1, 2"),
        ("anything", "NaN", "NaN"),
    ],
)
def test_a_text_is_json_where_the_schema_wants_it(name: str, text: str, value: Any) -> None:
    assert parse_parameter("go", SCHEMA, name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("n", "many", """'n' is "many", not of type integer"""),
        ("n", "3.5", "'n' is 3.5, not of type integer"),
        ("stop", '{"km": "far"}', """'stop'['km'] is "far", not of type integer"""),
        ("colour", "blue", """'colour' is "blue", not one of "red", "green\""""),
        ("when", "soon", """'when' is "soon", which does not fit format "date" and not of type null"""),
        ("trukc", "7", "there is no parameter 'trukc' (did you mean `truck`?)"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_name_and_value(name: str, text: str, told: str) -> None:
    with pytest.raises(ParametersError) as caught:
        parse_parameter("go", SCHEMA, name, text)
    assert str(caught.value) == f"parameters of flow 'go': {told}"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ParametersError) as caught:
        check_parameters("go", SCHEMA, {"n": "x", "trukc": 1, "stop": {}})
    assert caught.value.problems == (
        "there is no parameter 'trukc' (did you mean `truck`?)",
        "'truck' is missing",
        """'n' is "x", not of type integer""",
        "'stop' is {}, 'km' is missing",
    )


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(ParametersError) as caught:
        check_parameters("go", SCHEMA, {"truck": ["x" * 10_000]})
    assert len(str(caught.value)) < 400


@given(st.text(), st.integers(), st.dictionaries(st.text(), st.integers()))
def test_what_was_parsed_passes_the_check(truck: str, n: int, anything: dict[str, int]) -> None:
    given_ = {"truck": truck, "n": str(n), "anything": json.dumps(anything)}
    parsed = {name: parse_parameter("go", SCHEMA, name, text) for name, text in given_.items()}
    assert parsed == {"truck": truck, "n": n, "anything": anything}
    check_parameters("go", SCHEMA, parsed)
