"""`penstock deployments list|show|pause|unpause|delete`"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All deployments, with their next due times."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    found = connect().get("deployments")["deployments"]
    if as_json:
        print_json(found)
        return
    columns = ["name", "flow", "pool", "state", "concurrency", "next", "version"]
    print_table([_line(each) for each in found], columns, empty="no deployments: `penstock deploy` makes them")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One deployment with its schedules."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_fields, print_json, print_table

    found = connect().get(f"deployments/{name}")
    if as_json:
        print_json(found)
        return
    fields = ["name", "flow", "module", "pool", "parameters", "limits", "tags", "state", "concurrency"]
    print_fields({**found, **_line(found)}, [*fields, "version", "actor", "created", "updated"])
    print("\nschedules")
    schedules = [{"when": _when(each), **each} for each in found["schedules"]]
    print_table(schedules, ["when", "timezone", "parameters", "next_at"], empty="none")


@app.command()
def pause(name: Name) -> None:
    """Have its schedules start no runs; rules and people still can."""
    _set_paused(name, "pause", "paused")


@app.command()
def unpause(name: Name) -> None:
    """Have its schedules start runs again, from the next due time on."""
    _set_paused(name, "unpause", "unpaused")


@app.command()
def delete(name: Name) -> None:
    """Remove it; its runs stay."""
    from penstock.services.cli.client import connect

    connect().delete(f"deployments/{name}")
    print(f"removed {name}")


def _set_paused(name: str, deed: str, done: str) -> None:
    from penstock.services.cli.client import connect

    changed = connect().post(f"deployments/{name}/{deed}", {})["changed"]
    print(f"{done} {name}" if changed else f"{name} is {done} already")


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """One deployment in a few words."""
    limit = row["concurrency"]
    places = None if limit is None else f"{row['holding']} of {limit}, {row['waiting']} waiting ({row['when_full']})"
    version = row["version"]
    short = None if version is None else version[:10] + ("-dirty" if version.endswith("-dirty") else "")
    upcoming = row["schedules"][0]["next_at"] if row["schedules"] and not row["paused"] else None
    state = "paused" if row["paused"] else "active"
    return {**row, "state": state, "concurrency": places, "version": short, "next": upcoming}


def _when(schedule: Mapping[str, Any]) -> str:
    return next(
        (f"{name} {schedule[name]}" for name in ("cron", "every", "rrule") if name in schedule), json.dumps(None)
    )
