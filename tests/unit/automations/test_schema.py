"""The exported JSON Schema: every key with its description and its default, and no rule file too few."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from tests.support.rule_texts import PEOPLE, rule

from penstock.automations import export_schema

SCHEMA = export_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def keys() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    for name, node in {"file": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, value in node.get("properties", {}).items():
            yield name, key, value, key in node.get("required", ())


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_has_a_description_and_a_default() -> None:
    for name, key, value, required in keys():
        referred = SCHEMA["$defs"].get(str(value.get("$ref", "")).rpartition("/")[2], {})
        assert "description" in {**referred, **value}, (name, key)
        assert required or "default" in value, (name, key)


def test_defaults_are_those_of_the_language() -> None:
    found = {(name, key): value.get("default") for name, key, value, _ in keys()}
    expected = {
        ("AutomationModel", "mode"): "parallel", ("When", "lateness"): "30s", ("When", "order"): "arrival",
        ("When", "grace"): "0s", ("When", "count"): 1, ("ApproveSpec", "timeout"): "1d",
        ("ApproveSpec", "on_timeout"): "reject", ("ScheduleModel", "timezone"): "UTC", ("MetricModel", "for"): "0s",
        ("DebounceModel", "keep"): "last",
    }  # fmt: skip
    assert {place: found[place] for place in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        PEOPLE,
        rule("{event: a, metric: {value: data.v, over: 1m, stat: avg, op: '>', threshold: 5}}"),
        rule("{sequence: [{all: [{event: a}, {any: [{event: b}, {event: c}]}]}, {event: d}], within: 5m}"),
        rule("{schedule: {rrule: FREQ=DAILY, catch_up: false, calendar: {weekdays: [mon]}}}"),
        rule("{event: a, changed: data.v, from: null, to: [1]}"),
        rule(more="    debounce: 5s\n    limit: 3/1h\n    dedupe: {by: subject, for: 1m}\n    mode: single\n"),
        rule(more="    debounce: {quiet: 5s, max: 1m, keep: first}\n    storm: 9/1m\n    if: event.id == 'x'\n"),
    ],
)
def test_it_takes_what_the_loader_takes(text: str) -> None:
    VALIDATOR.validate(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize(
    "text",
    [
        rule("{evnt: a}"),
        rule("{event: a, within: 5}"),
        rule("{event: a, order: by-time}"),
        rule("{all: [{event: a, grace: 5s}]}"),
        rule(more="    mode: sometimes\n"),
        rule(more="    cooldown: soon\n"),
        rule(then="[]"),
    ],
)
def test_it_refuses_what_an_editor_should_underline(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(YAML(typ="safe", pure=True).load(text))
