"""`penstock db …`: the schema."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
import typer

from penstock.services.database import connect, migrate
from penstock.services.database.tables import position, topic
from penstock.services.project import load_settings
from penstock.services.wiring import NotConfiguredError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def upgrade() -> None:
    """Bring the schema of PENSTOCK_DATABASE_URL to this version; safe to repeat."""
    asyncio.run(_upgrade(_url()))
    typer.echo("the schema is up to date")


@app.command("forget-topic")
def forget_topic(name: str) -> None:
    """Forget the recorded identity and the positions of a topic that was deleted and made anew on purpose.

    Reading starts again at its beginning; decisions that were made before are recognised and not made twice.
    """
    asyncio.run(_forget(_url(), name))
    typer.echo(f"positions of {name} are forgotten")


def _url() -> str:
    settings = load_settings()
    if not settings.database_url:
        raise NotConfiguredError("PENSTOCK_DATABASE_URL is not set (`penstock up` upgrades its own by itself)")
    return settings.database_url


async def _upgrade(url: str) -> None:
    database = connect(url)
    try:
        await migrate.upgrade(database)
    finally:
        await database.close()


async def _forget(url: str, name: str) -> None:
    database = connect(url)
    try:
        async with database.begin() as connection:
            await connection.execute(sa.delete(topic).where(topic.c.name == name))
            await connection.execute(sa.update(position).where(position.c.topic == name).values(position=-1))
    finally:
        await database.close()
