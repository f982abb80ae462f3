"""Every worked example comes out exactly: those beside the checkout, where they are, and our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.core_timelines import SHARED, Timeline, timeline

from penstock.triggers import simulate
from penstock.triggers.decisions import Decision

OWN = Path(__file__).parent / "timelines"
FILES = sorted(OWN.glob("*.yaml")) + sorted(SHARED.glob("*.yaml"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the worked examples lie beside the checkout of those who have them")
def test_the_worked_examples_are_there() -> None:
    assert len(list(SHARED.glob("*.yaml"))) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_timeline_comes_out_exactly(path: Path) -> None:
    example = timeline(path)
    decisions = list(simulate(example.rules, example.events, example.until))
    assert example.told(decisions) == example.expected()
    assert [each.at for each in decisions] == sorted(each.at for each in decisions)
    _reasons(example, decisions)


def _reasons(example: Timeline, decisions: list[Decision]) -> None:
    """Beginnings, where one is given."""
    for each in example.expect:
        if "reason" in each:
            found = [one for one in decisions if one.kind == each["kind"] and one.reason.startswith(each["reason"])]
            assert found, each
