"""HTML from templates: autoescaped, with the few filters that times need."""

from __future__ import annotations

import time
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from penstock.events.instants import SECOND, Instant, to_instant

_FOLDER = Path(__file__).parent
_STATIC = {"penstock.css": "text/css", "icon.svg": "image/svg+xml"}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def page(request: Request, template: str, *, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
    """A rendered page; `identity` is whoever looks at it, if anybody is known."""
    values["identity"] = getattr(request.state, "identity", None)
    return HTMLResponse(_environment.get_template(template).render(values), status)


def static_file(name: str) -> tuple[bytes, str] | None:
    """A file and its media type; None for a name that is not one of ours."""
    media_type = _STATIC.get(name)
    return ((_FOLDER / "static" / name).read_bytes(), media_type) if media_type else None


def ago(moment: str, now: Instant | None = None) -> str:
    """ "3 min ago", "in 27 min"; moment: RFC 3339."""
    now = time.time_ns() // 1_000 if now is None else now
    seconds = (to_instant(datetime.fromisoformat(moment)) - now) / SECOND
    if abs(seconds) < 45:
        return "just now" if seconds <= 0 else "in a moment"
    amount = next(
        (f"{round(abs(seconds) / length)} {unit}" for length, unit in _UNITS if abs(seconds) >= length), "1 min"
    )
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def clock_time(moment: str) -> str:
    """ "21 Nov 2026, 12:03 UTC"; moment: RFC 3339."""
    return datetime.fromisoformat(moment).strftime("%-d %b %Y, %H:%M UTC")


_environment = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"ago": ago, "clock_time": clock_time}
