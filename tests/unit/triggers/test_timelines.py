"""Every clause of the rule language by a worked example of our own; see `tests/support/worked_examples.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.worked_examples import read_timeline, timelines

OWN = timelines(Path(__file__).parent / "timelines")


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.stem))
def test_a_timeline_comes_out_exactly(path: Path) -> None:
    timeline = read_timeline(path)
    decisions = timeline.simulated()
    assert timeline.differences(decisions) == ([], [])
    assert [each["at"] for each in decisions] == sorted(each["at"] for each in decisions)


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.stem))
def test_a_suppressed_decision_says_which_stage_it_was(path: Path) -> None:
    timeline = read_timeline(path)
    expected = {tuple(each["events"]): each["reason"] for each in timeline.expect if "reason" in each}
    suppressed = {tuple(each["events"]): each["reason"] for each in timeline.simulated() if each["reason"]}
    assert expected.keys() == suppressed.keys()
    assert all(suppressed[events].startswith(stage) for events, stage in expected.items())
