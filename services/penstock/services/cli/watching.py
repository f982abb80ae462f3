"""A run as it goes on, in the terminal: a live view; into a pipe or a file one line for each thing that happens."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from penstock.services.cli.client import Client
from penstock.services.cli.following import follow
from penstock.services.cli.output import log_line, plain, style_of

_TASKS = 12  # finished ones that are shown; the others are counted
_MARKS = {"completed": "✔", "failed": "✗", "timed_out": "✗", "crashed": "✗", "cancelled": "✗"}
INTERRUPTED = 130  # the exit code after Ctrl-C; the run goes on


@dataclass(slots=True)
class View:
    """What is known of a run. `take` each of the stream's objects in order."""

    id: str
    flow: str
    state: str = "pending"
    detail: str = ""
    tasks: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_TASKS))
    finished: int = 0
    progress: dict[str, float] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None

    def take(self, news: Mapping[str, Any]) -> None:
        """Note one thing that has happened."""
        match news["kind"]:
            case "state":
                self.state, self.detail = news["state"], news["detail"]
            case "task":
                self.tasks.append(news)
                self.finished += 1
            case "artifact" if news["artifact"]["kind"] == "progress":
                self.progress[news["artifact"]["key"]] = float(news["artifact"]["data"])
            case "end":
                self.state, self.end = news["state"], news

    @property
    def exit_code(self) -> int:
        """0 for a run that completed."""
        return 0 if self.state == "completed" else 1

    def line(self) -> str:
        """How it ended."""
        end = self.end or {}
        told = f"{self.flow} {self.id}: {self.state}"
        if end.get("error"):
            return plain(f"{told}: {end['error']}")
        return plain(told if end.get("result") is None else f"{told}: {json.dumps(end['result'], ensure_ascii=False)}")


def watch_run(client: Client, made: Mapping[str, Any], *, as_json: bool = False) -> int:
    """Show a run until it has ended.  Returns the exit code: 0 completed, 1 ended otherwise, 130 after Ctrl-C."""
    view = View(made["id"], made["flow"])
    news = follow(client, view.id)
    try:
        if as_json:
            _print_json(view, news)
        elif sys.stdout.isatty():
            show_live(view, news, Console())
        else:
            print_lines(view, news)
    except KeyboardInterrupt:
        print(f"run {view.id} goes on: `penstock runs logs --follow {view.id}`", file=sys.stderr)
        return INTERRUPTED
    return view.exit_code


def print_lines(view: View, news: Iterable[Mapping[str, Any]]) -> None:
    """One line for each thing that happens."""
    print(f"{view.flow} {view.id}", flush=True)
    for each in news:
        view.take(each)
        if text := line_of(each):
            print(text, flush=True)
    if view.end is not None:
        print(view.line(), flush=True)


def line_of(news: Mapping[str, Any]) -> str:
    """What has happened, in one line; "" for the end."""
    match news["kind"]:
        case "log":
            return log_line(news)
        case "state":
            return plain(f"{news['at']}  {'STATE':7}  {news['state']} {news['detail']}".rstrip())
        case "task":
            told = f"{news['ended']}  {'TASK':7}  {news['name']} {news['state']}"
            return plain(f"{told}: {news['error']}" if news.get("error") else told)
        case "artifact":
            made = news["artifact"]
            data = json.dumps(made["data"], ensure_ascii=False)[:200] if made["kind"] in ("progress", "link") else ""
            return plain(f"{news['ended']}  {'ARTIFACT':7}  {made['kind']} {made['key']} {data}".rstrip())
    return ""


def show_live(view: View, news: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Log lines scroll by above; below stand the state, the tasks as they finish, and what shows its progress."""
    with Live(console=console, refresh_per_second=8, get_renderable=Rendered(view).render) as live:
        for each in news:
            view.take(each)
            if each["kind"] == "log":
                live.console.print(Text(log_line(each)), soft_wrap=True)
        live.refresh()
    console.print(Text(view.line(), style=style_of(view.state)), soft_wrap=True)


class Rendered:
    """The live part of the screen."""

    def __init__(self, view: View) -> None:
        self._view, self._began = view, time.monotonic()
        self._spinner = Spinner("dots")

    def render(self) -> RenderableType:
        """As of now; called by rich, also from a thread of its own."""
        view = self._view
        head = Table.grid(padding=(0, 1))
        style = style_of(view.state)
        mark: RenderableType = self._spinner if view.end is None else Text(_MARKS.get(view.state, "•"), style=style)
        took = Text(f"{time.monotonic() - self._began:.1f} s", style="dim")
        head.add_row(mark, Text(plain(view.flow), style="bold"), Text(view.state, style=style), took, view.id)
        parts: list[RenderableType] = [head]
        if view.detail and view.end is None:
            parts.append(Text(f"  {plain(view.detail)}", style="dim"))
        if view.finished > len(view.tasks):
            parts.append(Text(f"  … {view.finished - len(view.tasks)} tasks finished before", style="dim"))
        parts += [_task_line(each) for each in list(view.tasks)]
        parts += [_bar(key, percent) for key, percent in list(view.progress.items())]
        return Group(*parts)


def _task_line(task: Mapping[str, Any]) -> Text:
    state = task["state"]
    line = Text(f"  {_MARKS.get(state, '•')} {plain(task['name'])}", style=style_of(state))
    if task.get("error"):
        line.append(f" {plain(task['error'])}", style="dim")
    return line


def _bar(key: str, percent: float) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(Text(f"  {plain(key)}"), ProgressBar(total=100, completed=percent, width=40), Text(f"{percent:.0f} %"))
    return row


def _print_json(view: View, news: Iterable[Mapping[str, Any]]) -> None:
    for each in news:
        view.take(each)
        print(json.dumps(each, ensure_ascii=False), flush=True)
