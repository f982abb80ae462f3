"""`penstock runs list|show|logs`, and through `run_changes` cancel|retry|suspend|resume."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from penstock.services.cli import run_changes
from penstock.services.cli.durations import moment
from penstock.services.cli.run_options import Automation, Deployment, Flow, Since, States, Tag, Until

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Id = Annotated[str, typer.Argument(metavar="ID")]


class Format(StrEnum):
    """How something is printed."""

    TABLE = "table"
    JSON = "json"


AsJson = Annotated[bool, typer.Option("--json", help="the same as --format json")]
Form = Annotated[Format, typer.Option("--format", help="for people, or for programs")]


@app.command("list")
def list_(
    state: States = None,
    flow: Flow = None,
    deployment: Deployment = None,
    automation: Automation = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    before: Annotated[str | None, typer.Option(help="older ones than this ID", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50,
    form: Form = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first; --before goes on with older ones."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    now = datetime.now(UTC)
    moments = {"since": moment(since, now), "until": moment(until, now, "--until")}
    page = connect().get(
        "runs",
        state=state,
        flow=flow,
        deployment=deployment,
        automation=automation,
        tag=tag,
        before=before,
        limit=limit,
        **moments,
    )
    if as_json or form is Format.JSON:
        print_json(page["runs"])
        return
    print_table(page["runs"], ["id", "flow", "state", "created", "ended", "error"], empty="no runs")
    if page["next"]:
        print(f"\nolder ones: penstock runs list --limit {limit} --before {page['next']}")


@app.command()
def show(id_: Id, form: Form = Format.TABLE, as_json: AsJson = False) -> None:
    """One run: its states, its tasks, its result, its error with its trace, what it waits for."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import plain, print_fields, print_json, print_table

    found = connect().get(f"runs/{id_}")
    if as_json or form is Format.JSON:
        print_json(found)
        return
    names = [
        "id",
        "flow",
        "deployment",
        "state",
        "waits_for",
        "pool",
        "worker",
        "tries",
        "parameters",
        "result",
        "error",
    ]
    print_fields(found, [*names, "firing_id", "version", "tags", "created", "started", "ended"])
    print("\nstates")
    print_table(found["changes"], ["at", "state", "actor", "detail"], empty="none yet")
    print("\ntasks")
    tasks = [task | {"result": _summary(task["result"])} for task in found["tasks"]]
    print_table(tasks, ["name", "state", "started", "ended", "result", "error"], empty="none finished")
    if found["artifacts"]:
        print("\nartifacts")
        shown = [each | {"data": _summary(each["data"])} for each in found["artifacts"]]
        print_table(shown, ["key", "kind", "at", "description", "data"], empty="")
    if found["trace"]:
        print("\ntrace")
        for line in found["trace"]:
            print(plain(line))


@app.command()
def logs(
    id_: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run has ended")] = False,
    as_json: AsJson = False,
) -> None:
    """What a run has logged; with --follow also what it logs from now on."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json

    client, after = connect(), 0
    while lines := client.get(f"runs/{id_}/logs", after=after, limit=1_000)["logs"]:
        after = lines[-1]["id"]
        if as_json and not follow:
            print_json(lines)
            continue
        for line in lines:
            _print_line(line, as_json)
    if follow:
        _follow(client, id_, after, as_json)
    elif not after:
        print("[]" if as_json else f"run {id_} has logged nothing")


def _follow(client: Any, id_: str, after: int, as_json: bool) -> None:
    """Until the run has ended, or Ctrl-C."""
    from penstock.services.cli.following import follow

    try:
        for line in follow(client, id_, after=after, only="log"):
            if line.pop("kind") == "log":
                _print_line(line, as_json)
    except KeyboardInterrupt:
        return


def _print_line(line: dict[str, Any], as_json: bool) -> None:
    from penstock.services.cli.output import log_line

    if as_json:
        import json

        print(json.dumps(line, ensure_ascii=False), flush=True)
    else:
        print(log_line(line), flush=True)


def _summary(value: Any) -> Any:
    """A long value, shortened."""
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters; --json has it whole)"


run_changes.add_to(app)  # after those above, which the help names first
