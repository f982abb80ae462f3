"""`penstock approvals list|approve|reject`"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Comment = Annotated[str | None, typer.Option(help="why; it stands in the audit log")]


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
    columns = ["id", "status", "ask", "automation", "approvals", "needs", "expires_at"]
    print_table(found, columns, empty="nothing waits for a decision" if status == "pending" else "no approvals")


@app.command()
def approve(id_: Annotated[str, typer.Argument(metavar="ID")], comment: Comment = None) -> None:
    """Approve: what waits goes on, once as many have approved as are needed."""
    _decide(id_, "approve", comment)


@app.command()
def reject(id_: Annotated[str, typer.Argument(metavar="ID")], comment: Comment = None) -> None:
    """Reject: what waits ends as rejected."""
    _decide(id_, "reject", comment)


def _decide(id_: str, decision: str, comment: str | None) -> None:
    from penstock.services.cli.client import connect

    found = connect().post(f"approvals/{id_}/decision", {"decision": decision, "comment": comment})
    print(f"{found['id']}: {found['status']} ({found['message']})")
