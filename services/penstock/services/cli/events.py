"""`penstock events tail|trace`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def events() -> None:
    """Follow events as they come, and what came of them."""


@app.command()
def tail(
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="only these types; * is any run of characters")
    ] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="begin with the oldest there is")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="end after so many")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="whole events, one JSON object a line")] = False,
) -> None:
    """Print events as they are published, Penstock's own among them, until Ctrl-C."""
    from penstock.services.cli.client import connect

    parameters: dict[str, Any] = {"type": type_ or [], "from_beginning": from_beginning}
    try:
        with connect().lines("events/stream", **parameters) as lines:
            for number, line in enumerate(lines, start=1):
                print(line if as_json else _line(json.loads(line)), flush=True)
                if number == count:
                    return
    except KeyboardInterrupt:
        return


@app.command()
def trace(
    id_: Annotated[str, typer.Argument(metavar="ID")], as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """What an event set going, hop by hop: ID is that of any event which took part, or of the root cause."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    found = connect().get(f"timeline/{id_}")
    if as_json:
        print_json(found)
    else:
        print_table(found["hops"], ["ms", "hop", "id", "detail"], empty="nothing came of it")


def _line(event: dict[str, Any]) -> str:
    from penstock.services.cli.output import plain

    shown = [event.get("time") or "–", event.get("type", ""), event.get("subject") or "–", event.get("id", "")]
    data = json.dumps(event["data"], ensure_ascii=False) if event.get("data") is not None else ""
    return plain("  ".join([*map(str, shown), data]).rstrip())
