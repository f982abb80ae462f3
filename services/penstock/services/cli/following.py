"""The stream of a run, taken up again where it broke off: an API that is restarted does not end a `--watch`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from penstock.services.cli.client import ApiRefusedError, Client, CommandError

PATIENCE = 60  # looks in a row that bring nothing, until it is given up
_BETWEEN = 1.0  # seconds
_AWAY = 500  # an HTTP status from here on is no refusal: what is asked for may be had later


def follow(
    client: Client, run_id: str, *, after: int = 0, only: str | None = None, pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """What happens to a run, each thing once, until and with its end.

    after: id of the last log line that is known.  only: one kind of things, beside the end.
    Raises CommandError when the API refuses, or has not answered for PATIENCE looks.
    """
    seen: set[tuple[str, ...]] = set()
    failures = 0
    while True:
        error = CommandError(f"the stream of run {run_id} ends again and again: `penstock runs show {run_id}`")
        try:
            for news in _read(client, run_id, after, only):
                kind = news["kind"]
                if kind == "log":
                    after = news["id"]
                elif (known := _identity(news)) in seen:
                    continue
                else:
                    seen.add(known)
                failures = 0
                yield news
                if kind == "end":
                    return
        except ApiRefusedError as refused:
            if refused.status < _AWAY:
                raise
            error = refused
        except CommandError as away:
            error = away
        failures += 1
        if failures > PATIENCE:
            raise error
        pause(_BETWEEN)


def _read(client: Client, run_id: str, after: int, only: str | None) -> Iterator[dict[str, Any]]:
    chosen = {} if only is None else {"only": only}
    with client.lines(f"runs/{run_id}/stream", after=after, **chosen) as lines:
        for line in lines:
            if line:  # an empty one only says that the stream lives
                yield json.loads(line)


def _identity(news: dict[str, Any]) -> tuple[str, ...]:
    """A change of state has its moment, a call its key and its moment."""
    return news["kind"], *(str(news.get(name)) for name in ("call", "state", "ended", "at"))
