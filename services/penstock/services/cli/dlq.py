"""`penstock dlq list|show|redrive`"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    before: Annotated[str | None, typer.Option(help="Older ones only, from where the last page ended.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What could not be handled: the newest 50 (see --limit), newest first; --before goes on with older ones."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    page = connect().get("dead-letters", limit=limit, **({"before": before} if before else {}))
    if as_json:
        print_json(page["dead_letters"])
        return
    print_table(page["dead_letters"], ["id", "at", "origin", "reason"], empty="no dead letters")
    if page["next"]:
        print(f"\nolder ones: penstock dlq list --limit {limit} --before {page['next']}")


@app.command()
def show(id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One dead letter with its body, as JSON."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json

    print_json(connect().get(f"dead-letters/{id_}"))


@app.command()
def redrive(id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Try what failed once more: the firing from its failed step on, or the record as it had come."""
    from penstock.services.cli.client import connect

    found = connect().post(f"dead-letters/{id_}/redrive", {})["redriven"]
    told = {"firing": "the firing goes on from the step that failed", "record": "the record is back on its topic"}
    print(told[found])
