"""`penstock keys create|list|revoke`: works on the database itself, for where no key is, nobody can ask the API."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
import typer
from sqlalchemy.engine import make_url

from penstock.events.instants import format_instant
from penstock.services.api.keys import KEY_PREFIX, ROLES, create_key, list_keys, revoke_key
from penstock.services.cli.client import CommandError
from penstock.services.cli.output import print_json, print_table
from penstock.services.database import Database, connect, migrate
from penstock.services.project import load_settings
from penstock.services.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Result = TypeVar("Result")
_ACTOR = re.compile(r"(user|service)/[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z")


@app.command()
def create(
    actor: Annotated[str, typer.Option(metavar="ACTOR", help="whose it is: user/NAME, or service/NAME for a program")],
    role: Annotated[list[str], typer.Option(help=f"{', '.join(ROLES)}; repeat it for several")],
) -> None:
    """Make a key and print it, once: nobody can read it again."""
    if not _ACTOR.match(actor):
        raise CommandError(f"--actor {actor!r}: write user/NAME for a person, service/NAME for a program")
    roles = tuple(each for each in ROLES if each in role)
    if unknown := set(role) - set(roles):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(ROLES)}", param_hint="--role")

    async def make(database: Database, settings: Settings) -> str:
        async with database.begin() as connection:
            return await create_key(
                connection, namespace=settings.namespace, actor=actor, roles=roles, by=whoever_types()
            )

    key = _on_database(make)
    typer.echo(f"the key of {actor} ({', '.join(roles)}); keep it, it is shown this once:", err=True)
    typer.echo(key)


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """All keys, without their secrets, the newest first."""

    async def read(database: Database, settings: Settings) -> list[dict[str, Any]]:
        async with database.read() as connection:
            return await list_keys(connection, settings.namespace)

    rows = [_shown(row) for row in _on_database(read)]
    if as_json:
        print_json(rows)
        return
    print_table(rows, ["id", "begins", "actor", "roles", "created", "revoked"], empty="no keys")


@app.command()
def revoke(id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Let a key, and every session that was opened with it, work no longer (within seconds)."""

    async def end(database: Database, settings: Settings) -> str | None:
        async with database.begin() as connection:
            return await revoke_key(connection, id_, namespace=settings.namespace, by=whoever_types())

    actor = _on_database(end)
    if actor is None:
        raise CommandError(f"there is no key {id_!r} that could be revoked; `penstock keys list` shows them")
    typer.echo(f"the key {id_} of {actor} is revoked")


def whoever_types() -> str:
    """For the audit log: the account of the operating system, since a shell on the database needs no key of ours."""
    try:
        return f"shell/{getpass.getuser()}"
    except (KeyError, OSError):  # an account without a name, as in many containers
        return f"shell/{os.getuid()}"


def _on_database(work: Callable[[Database, Settings], Awaitable[Result]]) -> Result:
    settings = load_settings()
    url = settings.database_url
    if not url or make_url(url).get_backend_name() == "sqlite":
        raise CommandError(
            "keys are made in the PostgreSQL that PENSTOCK_DATABASE_URL names, and it names none; an embedded Penstock"
            " (`penstock up`) has one key, its owner's, which `up` made at its first start"
        )

    async def run() -> Result:
        database = connect(url)
        try:
            if not await migrate.is_current(database):
                raise CommandError("the database has not this version's schema: run `penstock db upgrade` first")
            return await work(database, settings)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (OSError, sa.exc.DBAPIError) as error:
        where = make_url(url).render_as_string(hide_password=True)
        raise CommandError(f"the database {where} cannot be used: {error}") from None


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    stamps = {
        name: format_instant(row[name]) if isinstance(row[name], int) else None for name in ("created", "revoked")
    }
    return {
        "id": row["id"],
        "begins": f"{KEY_PREFIX}_{row['prefix']}",
        "actor": row["actor"],
        "roles": row["roles"],
    } | stamps
