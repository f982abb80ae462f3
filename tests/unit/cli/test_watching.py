"""The live view of a run, drawn from the stream's objects."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from penstock.services.cli.watching import View, print_lines, show_live

AT = "2026-11-21T12:00:00Z"


def task(name: str, state: str = "completed", error: str | None = None) -> dict[str, Any]:
    return {"kind": "task", "name": name, "state": state, "ended": AT, "error": error}


STORY: list[dict[str, Any]] = [
    {"kind": "state", "at": AT, "state": "running", "detail": ""},
    {"kind": "log", "at": AT, "level": "INFO", "line": "[bold]off we\x1b[2J go"},
    *(task(f"step-{number}") for number in range(20)),
    task("pay", "failed", "ValueError: no"),
    {"kind": "artifact", "ended": AT, "artifact": {"kind": "progress", "key": "upload", "data": 40.0}},
    {"kind": "end", "state": "failed", "error": "ValueError: no", "result": None},
]


def test_a_live_view_shows_state_tasks_progress_and_logs() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    view = View("r1", "ship")
    show_live(view, STORY, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for text in ("[bold]off we�[2J go", "✔ step-19", "9 tasks finished before", "✗ pay ValueError: no", "40 %"):
        assert text in shown
    assert shown.rstrip().endswith("ship r1: failed: ValueError: no")
    assert view.exit_code == 1


def test_without_a_terminal_each_thing_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = View("r1", "ship")
    print_lines(view, [STORY[0], STORY[1], task("pay"), {"kind": "end", "state": "completed", "result": {"km": 7}}])
    assert capsys.readouterr().out.splitlines() == [
        "ship r1",
        f"{AT}  STATE    running",
        f"{AT}  INFO     [bold]off we�[2J go",
        f"{AT}  TASK     pay completed",
        'ship r1: completed: {"km": 7}',
    ]
    assert view.exit_code == 0
