"""Every shared case of the pattern language, whose answers were taken from the reference engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.triggers import Matcher, Pattern, PatternError

CASES = Path(__file__).parents[4] / "../shared/cases/patterns.jsonl"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the shared cases lie beside the repository, not in it")


def cases() -> list[Any]:
    if not CASES.exists():
        return []
    lines = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    return [pytest.param(case, id=case["name"]) for case in lines]


def compiled(case: dict[str, Any]) -> Pattern:
    text = case.get("pattern_text")
    try:
        return Pattern(case["pattern"] if text is None else json.loads(text))
    except json.JSONDecodeError as error:
        raise PatternError("", str(error)) from error


@pytest.mark.parametrize("case", cases())
def test_the_answer_is_that_of_the_reference_engine(case: dict[str, Any]) -> None:
    if case.get("invalid"):
        with pytest.raises(PatternError):
            compiled(case)
        return
    pattern = compiled(case)
    if case["matches"] is None:
        return
    text = case.get("event_text") or json.dumps(case["event"])
    matcher = Matcher()
    matcher.add("rule", pattern)
    assert matcher.match_json(text.encode()) == ({"rule"} if case["matches"] else set())
    if "event_text" not in case:
        assert pattern.matches(case["event"]) is case["matches"]
        assert matcher.match(case["event"]) == ({"rule"} if case["matches"] else set())
