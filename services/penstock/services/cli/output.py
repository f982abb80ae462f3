"""What commands print: a table for people, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 1_000  # columns
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")
_STYLES = {
    "completed": "green",
    "approved": "green",
    "running": "cyan",
    "pending": "yellow",
    "paused": "yellow",
    "waiting": "yellow",
    "retrying": "yellow",
    "failed": "red",
    "crashed": "red",
    "timed_out": "red",
    "rejected": "red",
    "expired": "red",
    "cancelled": "dim",
}


def print_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Rows as a table, or the line `empty` where there are none. Text from outside is never read as markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:  # an id that is broken in two cannot be copied
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == "id")
    count = 0
    for row in rows:
        count += 1
        table.add_row(*(_cell(row.get(column)) for column in columns))
    if count:
        _console().print(table)
    else:
        print(empty)


def print_fields(row: Mapping[str, Any], names: Sequence[str]) -> None:
    """The fields of one object, one a line; those without a value are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in names:
        if row.get(name) not in (None, "", [], {}):
            table.add_row(Text(name.replace("_", " "), style="bold"), _cell(row[name]))
    _console().print(table)


def _console() -> Console:
    """As wide as the terminal; into a pipe or a file, each row is one line."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDE)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("–", style="dim")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _TIME.match(text):
        text = text[:19].replace("T", " ") + "Z"  # to the second; --json has it whole
    return Text(_printable(text), style=_STYLES.get(text, ""))


def _printable(text: str) -> str:
    """Without control characters: what an event says must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def style_of(state: str) -> str:
    """The colour of a state."""
    return _STYLES.get(state, "")


def log_line(line: Mapping[str, Any]) -> str:
    """A line of a run's log."""
    return f"{line['at']}  {line['level']:7}  {plain(line['line'])}"


def plain(text: str) -> str:
    """One line for the terminal, control characters made visible."""
    return _printable(text).replace("\n", "⏎")
