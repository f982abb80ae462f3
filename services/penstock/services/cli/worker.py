"""`penstock worker start`: a worker of one pool, as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from penstock.automations.durations import parse_duration
from penstock.automations.pools import Kind, Pool, PoolError, pool_named
from penstock.services.cli.service import serve
from penstock.services.processes import configure_logging, run_until_signalled
from penstock.services.project import load_settings
from penstock.services.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Workers: they claim the runs of a pool, and carry them out."""


@app.command()
def start(
    pool: Annotated[str | None, typer.Option(help="The pool to serve; default: PENSTOCK_POOL, else `default`.")] = None,
    name: Annotated[str, typer.Option(help="What the worker is called; default: its host and process id.")] = "",
    queues: Annotated[str, typer.Option(help="Queues of the pool to serve, with commas; default: all of them.")] = "",
    limit: Annotated[int | None, typer.Option(help="Runs at a time; default: PENSTOCK_CONCURRENCY, else 4.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="How runs are isolated; default: as penstock.yaml says.")] = None,
    drain: Annotated[str, typer.Option(help="How long runs may go on at SIGTERM, like 30s; default: the pool's.")] = "",
) -> None:
    """Carry out runs until SIGTERM; then let them end for a while, and hand back those that have not.

    A second SIGTERM or Ctrl-C hands back at once, a third one ends the process. The bus and the databases are those of
    PENSTOCK_BUS_URL, …_DATABASE_URL and …_REDIS_URL.
    """
    given: dict[str, Any] = {"pool": pool, "worker_name": name, "queues": queues, "concurrency": limit}
    settings = load_settings(**{key: value for key, value in given.items() if value not in (None, "")})
    settings = with_pool(settings, {"kind": kind, "drain": _span(drain) if drain else None})
    configure_logging(settings.log_level, json=settings.log_json)
    hurry = asyncio.Event()
    grace = pool_named(settings.pools, settings.pool).grace
    run_until_signalled(serve(settings, ["worker"], hurry), hurry=hurry, grace=grace)


def _span(text: str) -> timedelta:
    try:
        return timedelta(microseconds=parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"--drain: {error}") from None


def with_pool(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """The settings, with the worker's pool as the flags have it (None: not given).

    Raises UnknownPoolError, and PoolError for flags that do not fit the pool.
    """
    pool = pool_named(settings.pools, settings.pool)
    try:
        chosen = Pool(**pool.model_dump() | {key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        told = [each["msg"].removeprefix("Value error, ") for each in error.errors(include_url=False)]
        raise PoolError("; ".join(told)) from None
    others = tuple(each for each in settings.pools if each.name != chosen.name)
    return settings.model_copy(update={"pools": (*others, chosen)})
