"""What is simulated happens live: worked examples through the real engine, on both pairs, with a moved clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.live import Staged, play, staged, told
from tests.support.rig import Rig, open_rig
from tests.support.worked_examples import OWN, SHARED, Timeline, read_timeline, timelines

from penstock.services.engine import stage_two

CORE = Path(__file__).parents[1] / "unit/triggers/timelines"


def needs_loading(timeline: Timeline) -> bool:
    return any(rule.rule.needs_loading for rule in timeline.loaded().rules)


ALL = [read_timeline(path) for folder in (OWN, CORE, SHARED) for path in timelines(folder)]
FROM_EVENTS = [each for each in ALL if not needs_loading(each)]
FROM_LOADING = [each for each in ALL if needs_loading(each)]


@pytest.fixture(autouse=True)
def _clocks_are_stored_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they can be looked at."""
    monkeypatch.setattr(stage_two, "_SETTLE", 0.3)


async def test_every_worked_example_comes_out_live_as_it_does_simulated(urls: dict[str, str], tmp_path: Path) -> None:
    together = list({each.name: staged(each) for each in FROM_EVENTS}.values())
    async with open_rig(**urls, folder=tmp_path) as rig:
        await play(rig, together, applied=min(each.arrivals[0] for each in together))
        assert await differences(rig, together) == {}


@pytest.mark.parametrize("timeline", FROM_LOADING, ids=lambda each: each.name)
async def test_what_runs_from_the_loading_of_a_rule_does_so_live(
    urls: dict[str, str], tmp_path: Path, timeline: Timeline
) -> None:
    alone = staged(timeline)
    async with open_rig(**urls, folder=tmp_path) as rig:
        await play(rig, [alone], applied=alone.arrivals[0])
        assert await differences(rig, [alone]) == {}


async def differences(rig: Rig, timelines: Sequence[Staged]) -> dict[str, object]:
    """By name of the timeline: what is missing, what is too much."""
    found: dict[str, object] = {}
    for each in timelines:
        decisions, suppressed = await told(rig, each)
        expected = Counter(
            (one["automation"], json.dumps(one["key"], separators=(",", ":")))
            for one in each.timeline.expect
            if one["kind"] == "suppressed"
        )
        kept = [one for one in each.timeline.expect if one["kind"] != "suppressed"]
        compared = Timeline("", "", [], None, kept, each.timeline.loose)
        missing, extra = compared.differences(decisions)
        if each.timeline.until is None:
            extra = []  # live, the clock runs on after the last event
        if missing or extra or any(suppressed.get(place, 0) < count for place, count in expected.items()):
            found[each.timeline.name] = (missing, extra, dict(expected), suppressed)
    return found
