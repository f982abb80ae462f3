"""The live view of a run, drawn from the stream's objects."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from penstock.services.cli.client import ApiRefusedError, Client, CommandError
from penstock.services.cli.following import PATIENCE, follow
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


class Flaky(Client):
    """Its streams: the objects of each, and what it breaks off with."""

    def __init__(self, *streams: tuple[list[dict[str, Any]], Exception | None]) -> None:
        self.streams, self.asked = list(streams), []

    streams: list[tuple[list[dict[str, Any]], Exception | None]]
    asked: list[dict[str, Any]]

    @contextmanager
    def lines(self, path: str, **parameters: Any) -> Iterator[Iterator[str]]:
        self.asked.append(parameters)
        news, error = self.streams.pop(0)

        def read() -> Iterator[str]:
            for each in news:
                yield json.dumps(each)
                yield ""
            if error is not None:
                raise error

        yield read()


def test_a_stream_that_breaks_off_is_taken_up_again_and_nothing_is_told_twice() -> None:
    running = {"kind": "state", "at": AT, "state": "running"}
    logged = {"kind": "log", "id": 7, "at": AT, "level": "INFO", "line": "first"}
    done = [task("step") | {"call": "c1"}, {"kind": "end", "state": "completed"}]
    away, restarted = CommandError("no answer"), ApiRefusedError(503, {})
    client = Flaky(([running, logged], away), ([], restarted), ([running], None), ([running, *done], None))
    pauses: list[float] = []
    assert list(follow(client, "r1", pause=pauses.append)) == [running, logged, *done]
    assert ([asked["after"] for asked in client.asked], len(pauses)) == ([0, 7, 7, 7], 3)


def test_an_api_that_refuses_or_stays_away_ends_it() -> None:
    with pytest.raises(ApiRefusedError):
        list(follow(Flaky(([], ApiRefusedError(404, {"detail": "there is no run"}))), "r1"))
    gone = Flaky(*[([], CommandError("no answer"))] * (PATIENCE + 1))
    with pytest.raises(CommandError, match="no answer"):
        list(follow(gone, "r1", pause=lambda seconds: None))
