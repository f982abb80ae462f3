"""`flow.deploy` and `flow.serve`: what they take, and the way to the server's side that carries them out.

A program that defines flows needs no server; one that deploys them does. So the server's side is looked up by name when
it is asked for, and nothing of it is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any, Protocol, TypedDict, cast

from penstock.flows.errors import DeployError

_SERVER = "penstock.services.serving"
_CHILDREN = frozenset(("penstock.services.worker.child", "penstock.services.worker.template"))  # that import flows

Schedule = str | Mapping[str, Any]
Concurrency = int | Mapping[str, Any]


class DeployOptions(TypedDict, total=False):
    """What a deployment says beside its flow and name.

    schedules: when it runs by itself; each a cron line, or a mapping with one of `cron`, `every` (a timedelta, or text
    as "5m") and `rrule`, and if need be `timezone` and `parameters` over those of the deployment.
    parameters: what a run gets unless it says otherwise.  pool: whose workers run it.  limits: names of limits that
    each run passes first.  tags: to find its runs by.  paused: its schedules start no run.
    concurrency: runs at once: a number, or {"limit": 1, "when_full": "queue" | "cancel_new" | "replace"}.
    """

    schedules: Iterable[Schedule]
    parameters: Mapping[str, Any]
    pool: str
    limits: Iterable[str]
    tags: Iterable[str]
    paused: bool
    concurrency: Concurrency | None


class Server(Protocol):
    """The server's side."""

    def deploy(self, flow: Any, definition: dict[str, Any]) -> str:
        """See Flow.deploy."""

    def serve(self, flow: Any, definition: dict[str, Any]) -> None:
        """See Flow.serve."""


def server(deed: str) -> Server:
    """The server's side.  deed: what it is asked for, as errors name it.  Raises DeployError."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name in _CHILDREN:
        raise DeployError(f'{deed} was called while a worker imports it; put it below `if __name__ == "__main__":`')
    try:
        return cast("Server", import_module(_SERVER))
    except ImportError as error:
        raise DeployError(f"{deed} needs the server's parts ({error}): pip install 'penstock[server]'") from error


def definition(name: str, options: DeployOptions) -> dict[str, Any]:
    """As `penstock.yaml` would say it, but for the flow.  Raises DeployError for an option that there is not."""
    if unknown := options.keys() - DeployOptions.__annotations__.keys():
        known = ", ".join(DeployOptions.__annotations__)
        raise DeployError(f"a deployment has no {', '.join(sorted(unknown))}; there are: {known}")
    found: dict[str, Any] = {"name": name, **options}
    for key in ("limits", "tags"):
        if isinstance(found.get(key), str):
            raise DeployError(f"{key}={found[key]!r}: give a list")
        found[key] = list(found.get(key, ()))
    found["schedules"] = [_schedule(each) for each in found.get("schedules", ())]
    found["parameters"] = dict(found.get("parameters") or {})
    if isinstance(found.get("concurrency"), int):
        found["concurrency"] = {"limit": found["concurrency"]}
    return found


def _schedule(given: Schedule) -> dict[str, Any]:
    if isinstance(given, str):
        return {"cron": given}
    every = given.get("every")
    if isinstance(every, timedelta):
        return {**given, "every": f"{every // timedelta(microseconds=1)}us"}
    return dict(given)
