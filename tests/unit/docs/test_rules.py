"""Every example in docs/rules.md is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from tests.support.rule_texts import only_problem

from penstock.automations import compile_condition, export_schema, load_texts, pipeline, run_examples
from penstock.automations.scopes import condition_scope

PAGE = (Path(__file__).parents[3] / "docs/rules.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def pairs(kind: str) -> list[tuple[str, str]]:
    lines = "".join(blocks(kind)).splitlines()
    return list(zip(lines[::2], lines[1::2], strict=True))


FILES = blocks("yaml")
CONDITIONS = [(source, line) for block in blocks("if") for source, *lines in [block.splitlines()] for line in lines]


def test_the_page_has_its_examples() -> None:
    assert len(FILES) >= 10
    assert len(CONDITIONS) >= 12
    assert len(pairs("refused")) >= 9
    assert "then:" in FILES[0]


@pytest.mark.parametrize("text", FILES)
def test_a_file_is_taken_without_a_warning_and_fits_the_schema(text: str) -> None:
    assert load_texts({"rules.yaml": text}).problems == ()
    jsonschema.validate(YAML(typ="safe", pure=True).load(text), export_schema())


@pytest.mark.parametrize("text", FILES)
def test_each_test_of_a_file_passes(text: str) -> None:
    rules = load_texts({"rules.yaml": text}).require().rules
    assert all(rule.tests for rule in rules)
    for outcome in run_examples(rules):
        assert outcome.passed, "\n".join([outcome.name, *map(str, outcome.lines)])


@pytest.mark.parametrize(("source", "line"), CONDITIONS)
def test_a_condition_is_so(source: str, line: str) -> None:
    answer, given = line.split(maxsplit=1)
    data, end = json.JSONDecoder().raw_decode(given)
    event: dict[str, Any] = {"id": "1", "time": "2026-01-05T10:00:00Z", "data": data}
    verdict = compile_condition(source, condition_scope(())).judge({"event": event, "events": [event]})
    assert answer in ("yes", "no", "error")
    assert verdict.holds is (answer == "yes")
    assert verdict.error == given[end:].strip()


@pytest.mark.parametrize(("when", "told"), pairs("refused") + pairs("warned"))
def test_a_mistake_is_told_so(when: str, told: str) -> None:
    found = only_problem(f"automations:\n  - name: r\n    when: {when}\n    then: [{{emit: {{type: rule.fired}}}}]\n")
    assert f"{found.message} ({found.hint})" == told
    assert found.severity == ("error" if (when, told) in pairs("refused") else "warning")


def test_a_pipeline_is_explained_so() -> None:
    rules = [rule for text in FILES for rule in load_texts({"rules.yaml": text}).rules]
    [(name, shown)] = re.findall(r"^```explain (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    [rule] = [rule for rule in rules if rule.name == name]
    told = [f"  {stage.name:<10} {stage.effect:<7} {stage.text}" for stage in pipeline(rule)]
    assert told == shown.splitlines()
