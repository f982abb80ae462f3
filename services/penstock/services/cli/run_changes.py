"""`penstock runs cancel|retry|suspend|resume`: of the runs that are named, or of all that filters find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from penstock.services.cli.durations import moment
from penstock.services.cli.run_options import Automation, Deployment, Flow, Since, States, Tag, Until

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="which; without: all that the filters find")]
Yes = Annotated[bool, typer.Option("--yes", help="do it with all that the filters find; without: only say how many")]
Reason = Annotated[str, typer.Option(help="stands in the run's history and in the audit log")]
_ASKED = {"cancel": "is asked to stop", "suspend": "pauses after the task that runs now"}
_DONE = {"cancel": "cancelled", "retry": "is tried again", "suspend": "paused", "resume": "goes on"}


class Code(StrEnum):
    """What becomes of a run whose code changed."""

    CONTINUE = "continue"
    RESTART = "restart"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(cancel)
    app.command()(retry)
    app.command()(suspend)
    app.command()(resume)


def cancel(
    ids: Ids = None,
    now: Annotated[bool, typer.Option("--now", help="end its process without a word to its code")] = False,
    reason: Reason = "",
    state: States = None,
    flow: Flow = None,
    deployment: Deployment = None,
    automation: Automation = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """End runs for good. Code that runs is told, undoes what it has to, and is killed if it takes too long."""
    _do(
        "cancel", ids, _filters(state, flow, deployment, automation, tag, since, until), yes, at_once=now, reason=reason
    )


def retry(
    ids: Ids = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="run finished tasks again, too")] = False,
    reason: Reason = "",
    state: States = None,
    flow: Flow = None,
    deployment: Deployment = None,
    automation: Automation = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Have failed, crashed, timed-out or cancelled runs tried again; finished tasks are not run again."""
    _do(
        "retry",
        ids,
        _filters(state, flow, deployment, automation, tag, since, until),
        yes,
        from_start=from_start,
        reason=reason,
    )


def suspend(
    ids: Ids = None,
    now: Annotated[bool, typer.Option("--now", help="at once, not after the task that runs now")] = False,
    reason: Reason = "",
    state: States = None,
    flow: Flow = None,
    deployment: Deployment = None,
    automation: Automation = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Pause runs: they give their process back, and go on from their last finished task when they are resumed."""
    _do(
        "suspend",
        ids,
        _filters(state, flow, deployment, automation, tag, since, until),
        yes,
        at_once=now,
        reason=reason,
    )


def resume(
    ids: Ids = None,
    code: Annotated[
        Code | None,
        typer.Option(help="for runs whose code changed: go on with the new code on what is recorded, or anew"),
    ] = None,
    reason: Reason = "",
    state: States = None,
    flow: Flow = None,
    deployment: Deployment = None,
    automation: Automation = None,
    tag: Tag = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Let paused runs go on. One whose code changed meanwhile, and that waits for the choice, takes --code."""
    if code is not None:
        if not ids:
            raise typer.BadParameter("--code is for runs that are named by their ID")
        _choose(ids, code)
        return
    _do("resume", ids, _filters(state, flow, deployment, automation, tag, since, until), yes, reason=reason)


def _filters(
    state: list[str] | None,
    flow: str | None,
    deployment: str | None,
    automation: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    now = datetime.now(UTC)
    moments = {"since": moment(since, now), "until": moment(until, now, "--until")}
    given = {"state": state, "flow": flow, "deployment": deployment, "automation": automation, "tag": tag} | moments
    return {name: value for name, value in given.items() if value is not None}


def _do(operation: str, ids: list[str] | None, filters: dict[str, Any], yes: bool, **how: Any) -> None:
    body = {name: value for name, value in how.items() if value}
    if bool(ids) == bool(filters):
        raise typer.BadParameter(
            "name runs by their ID, or find them by filters"
            " (--state, --flow, --deployment, --automation, --tag, --since, --until)"
        )
    refused = _to_each(operation, ids, body) if ids else _to_all(operation, filters, yes, body)
    if refused:
        raise typer.Exit(1)


def _choose(ids: list[str], code: Code) -> None:
    from penstock.services.cli.client import connect

    client = connect()
    said = {Code.CONTINUE: "goes on with the code as it is now", Code.RESTART: "begins anew"}[code]

    def choose(each: str) -> str:
        client.post(f"runs/{each}/code", {"choice": code.value})
        return f"{each}: {said}"

    if _each(ids, choose):
        raise typer.Exit(1)


def _to_each(operation: str, ids: list[str], body: dict[str, Any]) -> bool:
    from penstock.services.cli.client import connect

    client = connect()
    return _each(ids, lambda each: _told(operation, client.post(f"runs/{each}/{operation}", body)))


def _each(ids: list[str], do: Callable[[str], str]) -> bool:
    """Returns whether one was refused; the others are done all the same."""
    from penstock.services.cli.client import ApiRefusedError

    refused = False
    for each in ids:
        try:
            print(do(each))
        except ApiRefusedError as error:
            if len(ids) == 1:
                raise
            typer.echo(f"penstock: {error}", err=True)
            refused = True
    return refused


def _to_all(operation: str, filters: dict[str, Any], yes: bool, body: dict[str, Any]) -> bool:
    from penstock.services.cli.client import CommandError, connect

    client = connect()
    found = client.post(f"runs/{operation}", body if yes else body | {"dry_run": True}, **filters)
    count, more = len(found["runs"]), " at least" if found["more"] else ""
    if not yes:
        if not count:
            print(f"no run to {operation}")
            return False
        for each in found["runs"][:10]:
            print(each["id"])
        if count > 10:
            print(f"… and {count - 10} more")
        raise CommandError(f"this would {operation}{more} {count} {_runs(count)}; add --yes to do it")
    for each in found["runs"]:
        print(_told(operation, each))
    for reason in found["refused"].values():
        typer.echo(f"penstock: {reason}", err=True)
    print(f"{operation}: {count} {_runs(count)}" + ("; there are more, say it again" if found["more"] else ""))
    return bool(found["refused"])


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


def _told(operation: str, found: dict[str, Any]) -> str:
    return f"{found['id']}: {_ASKED[operation] if found['asked'] else _DONE[operation]}"
