"""`penstock emit TYPE …`"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def emit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="dotted and past tense: order.placed")],
    subject: Annotated[str | None, typer.Option(help="what it is about")] = None,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="its content; - reads it from the input")] = None,
    source: Annotated[str, typer.Option(help="who says so")] = "/penstock/cli",
    id_: Annotated[str | None, typer.Option("--id", help="with the source its identity; none: a new one")] = None,
    time: Annotated[str | None, typer.Option(help="when it happened, RFC 3339; none: its arrival")] = None,
    partition_key: Annotated[
        str | None, typer.Option(help="what orders it; none: the subject, else the source")
    ] = None,
) -> None:
    """Send one event; returns once the bus has acknowledged it, and prints its id."""
    from penstock.events.event import from_mapping
    from penstock.events.ids import new_id
    from penstock.services.cli.client import connect

    mapping: dict[str, Any] = {"specversion": "1.0", "id": id_ or new_id(), "source": source, "type": type_}
    optional = {"subject": subject, "time": time, "partitionkey": partition_key}
    mapping |= {name: value for name, value in optional.items() if value is not None}
    if data is not None:
        mapping["data"] = _json(sys.stdin.read() if data == "-" else data)
    connect().post_event(from_mapping(mapping).to_json())
    print(mapping["id"])


def _json(text: str) -> Any:
    import json

    from penstock.services.cli.client import CommandError

    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(
            f"--data is not JSON ({error}): quote it for the shell, as in --data '{{\"n\": 1}}'"
        ) from None
