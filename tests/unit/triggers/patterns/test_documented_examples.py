"""Every line of every example in docs/patterns.md is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penstock.triggers import Matcher, Pattern, PatternError

PAGE = (Path(__file__).parents[4] / "docs/patterns.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


EXAMPLES = [(first, line) for block in blocks("pattern") for first, *lines in [block.splitlines()] for line in lines]
REFUSED = [line for block in blocks("refused") for line in block.splitlines()]


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) > 90
    assert len(REFUSED) > 30


@pytest.mark.parametrize(("pattern", "line"), EXAMPLES)
def test_an_example_is_so(pattern: str, line: str) -> None:
    answer, event = line.split(maxsplit=1)
    assert answer in ("yes", "no")
    matcher = Matcher()
    matcher.add("it", Pattern(json.loads(pattern)))
    assert matcher.match_json(event.encode()) == ({"it"} if answer == "yes" else set())
    assert Pattern(json.loads(pattern)).matches(json.loads(event)) is (answer == "yes")


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_refused_pattern_is_refused_with_a_reason(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern(json.loads(pattern))
    assert caught.value.reason


@pytest.mark.parametrize("code", blocks("python"))
def test_the_code_runs(code: str) -> None:
    exec(code, {})
