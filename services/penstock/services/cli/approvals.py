"""`penstock approvals list|show|approve|reject`"""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Comment = Annotated[str | None, typer.Option(help="why; it stands in the audit log")]

ShownDigest = Annotated[
    str | None,
    typer.Option(
        help="`shown` of what you have read (list --json, show): refused if it is another by now", metavar="DIGEST"
    ),
]


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help="pending, approved, rejected, expired, void or all")] = "pending",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Approvals, the pending ones unless told otherwise."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json, print_table

    found = connect().get("approvals", status=None if status == "all" else status, limit=limit)["approvals"]
    if as_json:
        print_json(found)
        return
    columns = ["id", "status", "ask", "automation", "run_id", "approvals", "needs", "expires_at"]
    print_table(found, columns, empty="nothing waits for a decision" if status == "pending" else "no approvals")


@app.command()
def show(id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One approval with its votes, as JSON; `shown` is the digest that `--shown` takes."""
    from penstock.services.cli.client import connect
    from penstock.services.cli.output import print_json

    print_json(connect().get(f"approvals/{id_}"))


@app.command()
def approve(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    form: Annotated[
        list[str] | None,
        typer.Option(help="a field that is to be filled in; once for each (show ID lists them)", metavar="NAME=VALUE"),
    ] = None,
    comment: Comment = None,
    shown: ShownDigest = None,
) -> None:
    """Approve: what waits goes on, once as many have approved as are needed."""
    _decide(id_, "approve", comment, shown, form or [])


@app.command()
def reject(
    id_: Annotated[str, typer.Argument(metavar="ID")], comment: Comment = None, shown: ShownDigest = None
) -> None:
    """Reject: what waits ends as rejected."""
    _decide(id_, "reject", comment, shown, [])


def _decide(id_: str, decision: str, comment: str | None, shown: str | None, fields: list[str]) -> None:
    """The vote carries the digest of what was seen: of what this prints, or of what the caller has read before."""
    from penstock.services.cli.client import connect

    api, form = connect(), None
    if shown is None or fields:
        seen = api.get(f"approvals/{id_}")
        print(f"{id_}: {seen['ask']}")
        shown = shown or seen["shown"]
        form = _filled_in(fields, seen.get("form") or {})
    body = {"decision": decision, "comment": comment, "shown": shown or None} | ({"form": form} if form else {})
    found = api.post(f"approvals/{id_}/decision", body)
    print(f"{found['id']}: {found['status']} ({found['message']})")


def _filled_in(fields: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    """NAME=VALUE, as the form's schema has the values.  Raises CommandError."""
    from penstock.automations.forms import from_text
    from penstock.services.cli.client import CommandError

    pairs = [field.partition("=") for field in fields]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise CommandError(f"--form {name}: write NAME=VALUE")
    return from_text(schema, {name: value for name, _, value in pairs})
