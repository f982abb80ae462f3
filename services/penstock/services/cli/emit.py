"""`penstock emit TYPE …`"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from penstock.events import Event

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"allow_extra_args": True})
def emit(
    context: typer.Context,
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

    _check_words(type_, context.args)
    mapping: dict[str, Any] = {"specversion": "1.0", "id": id_ or new_id(), "source": source, "type": type_}
    optional = {"subject": subject, "time": time, "partitionkey": partition_key}
    mapping |= {name: value for name, value in optional.items() if value is not None}
    if data is not None:
        mapping["data"] = _json(sys.stdin.read() if data == "-" else data)
    _send(from_mapping(mapping))
    print(mapping["id"])


def _check_words(type_: str, extra: list[str]) -> None:
    """What a shell makes of missing quotes, told as that.  Raises CommandError, BadParameter."""
    from penstock.services.cli.client import CommandError

    if extra:
        raise typer.BadParameter(
            f"unexpected {' '.join(extra)!r}: quote JSON for the shell, as in --data '{{\"celsius\": 9}}'"
        )
    if type_.split() != [type_]:
        raise CommandError(f"{type_!r} is no event type: write it without white space, e.g. {_dotted(type_)!r}")


def _dotted(type_: str) -> str:
    return ".".join(type_.split()) or "order.placed"


def _send(event: Event) -> None:
    """Through the API; onto the bus itself where only that is known."""
    from penstock.events import Emitter
    from penstock.services.cli.client import Client, NoInstanceError, find_instance
    from penstock.services.project import load_settings

    settings = load_settings()
    try:
        instance = find_instance(settings)
    except NoInstanceError:
        if not settings.bus_url:
            raise
        with Emitter(settings.bus_url) as emitter:
            emitter.emit(event)
    else:
        Client(instance).post_event(event.to_json())


def _json(text: str) -> Any:
    import json

    from penstock.services.cli.client import CommandError

    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(
            f"--data is not JSON ({error}): quote it for the shell, as in --data '{{\"n\": 1}}'"
        ) from None
