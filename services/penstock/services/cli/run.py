"""`penstock run FLOW --param k=v …`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def run(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="a deployment, or a flow as a worker has registered it")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="JSON where the flow wants it, else text; NAME=@FILE reads the value, NAME=@@x is the text @x",
        ),
    ] = None,
    priority: Annotated[int, typer.Option(min=-1_000, max=1_000, help="higher ones begin first")] = 0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="show how it goes until it has ended")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the run, or with --watch what happens, as JSON")] = False,
) -> None:
    """Run a flow on a worker. With --watch the exit code is 0 if it completed, 1 if it ended otherwise.

    Without, it is 0 once the run exists; its ID is printed.
    """
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json

    client = connect()
    given = [_split(each) for each in param or []]
    parameters = _parameters(client, flow, given) if given else {}
    made = client.post("runs", {"flow": flow, "parameters": parameters, "priority": priority})
    if watch:
        from penstock.services.cli.watching import watch_run

        raise typer.Exit(watch_run(client, made, as_json=as_json))
    if as_json:
        print_json(made)
    else:
        print(made["id"])


def _split(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name.strip():
        raise typer.BadParameter(f"--param {text!r}: write NAME=VALUE")
    return name.strip(), value


def _parameters(client: Any, flow: str, given: list[tuple[str, str]]) -> dict[str, Any]:
    """Typed by the schema that the flow's worker has registered; the API checks them all once more.

    A flow that is not known is refused there, with its near names.
    """
    from penstock.services.parameters import parse_parameter

    flows = {each["name"]: each["parameters"] for each in client.get("flows")["flows"]}
    deployed = {each["name"]: each["flow"] for each in client.get("deployments")["deployments"]}
    schema = flows.get(deployed.get(flow, flow).rpartition(":")[2], {})
    found: dict[str, Any] = {}
    for name, text in given:
        if name in found:
            raise typer.BadParameter(f"--param {name}: it is given twice")
        found[name] = parse_parameter(flow, schema, name, _value(name, text))
    return found


def _value(name: str, text: str) -> str:
    from penstock.services.cli.client import CommandError

    if text.startswith("@@"):
        return text[1:]
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--param {name}: cannot read {text[1:]!r}: {error}") from None
