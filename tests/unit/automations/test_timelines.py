"""Worked examples over time come out exactly: through the library, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.worked_examples import OWN, SHARED, read_timeline, timelines

from penstock.services.cli import main
from penstock.triggers.simulation import instant_of

MINE, THEIRS = timelines(OWN), timelines(SHARED)


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", MINE + THEIRS, ids=named)
def test_a_timeline_comes_out_exactly(path: Path) -> None:
    timeline = read_timeline(path)
    assert timeline.differences(timeline.simulated()) == ([], [])


@pytest.mark.parametrize("path", MINE + THEIRS, ids=named)
def test_the_command_says_the_same(path: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    timeline = read_timeline(path)
    rules, events = tmp_path / "rules.yaml", tmp_path / "events.jsonl"
    rules.write_text(timeline.rules)
    events.write_text("".join(json.dumps(each) + "\n" for each in timeline.events))
    until = ["--until", timeline.until] if timeline.until else []
    command = ["penstock", "rules", "simulate", str(rules), "--events", str(events), *until, "--format", "jsonl"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert timeline.differences(printed) == ([], [])
    times = [instant_of(each["at"]) for each in printed]
    assert times == sorted(times)
    assert all(list(each) == ["at", "automation", "kind", "key", "events", "reason"] for each in printed)


def test_the_project_has_timelines_of_its_own() -> None:
    assert len(MINE) >= 12
    if not THEIRS:
        pytest.skip("the collection beside the project is not here; its own timelines cover the language")
    assert len(THEIRS) >= 50
