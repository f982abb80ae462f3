"""`penstock runs list|show|logs`"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Id = Annotated[str, typer.Argument(metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json")]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="running, completed, failed, …")] = None,
    flow: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    found = connect().get("runs", state=state, flow=flow, limit=limit)["runs"]
    if as_json:
        print_json(found)
        return
    print_table(found, ["id", "flow", "state", "created", "ended", "error"], empty="no runs")


@app.command()
def show(id_: Id, as_json: AsJson = False) -> None:
    """One run: its states, its tasks, its result."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_fields, print_json, print_table

    found = connect().get(f"runs/{id_}")
    if as_json:
        print_json(found)
        return
    names = ["id", "flow", "deployment", "state", "pool", "worker", "attempt", "parameters", "result", "error"]
    print_fields(found, [*names, "firing_id", "version", "tags", "created", "started", "ended"])
    print("\nstates")
    print_table(found["changes"], ["at", "state", "actor", "detail"], empty="none yet")
    print("\ntasks")
    print_table(found["tasks"], ["name", "state", "started", "ended", "result", "error"], empty="none finished")


@app.command()
def logs(id_: Id, as_json: AsJson = False) -> None:
    """What a run has logged."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import plain, print_json

    client, after = connect(), 0
    while lines := client.get(f"runs/{id_}/logs", after=after, limit=1_000)["logs"]:
        after = lines[-1]["id"]
        if as_json:
            print_json(lines)
            continue
        for line in lines:
            print(f"{line['at']}  {line['level']:7}  {plain(line['line'])}")
    if not after:
        print("[]" if as_json else f"run {id_} has logged nothing")
