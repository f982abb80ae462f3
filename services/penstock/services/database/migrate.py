"""Migrations: expand first, contract a release later, so that processes of two formats work side by side."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from penstock.services.database.connection import Database, DatabaseUnavailableError

_LOCK = 0x70656E73  # any number that is ours: two processes must not migrate at once


def config() -> Config:
    """Alembic's configuration, without a file."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return found


async def upgrade(database: Database) -> None:
    """Bring the schema to the newest revision; safe to call by several processes at once, and again.

    One that a newer release has expanded is left as it is: this version can work with it.
    Raises DatabaseUnavailableError where it cannot be reached.
    """
    try:
        async with database.begin() as connection:
            if not database.is_sqlite:
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            await connection.run_sync(_upgrade)
    except OSError as error:
        where = database.engine.url.render_as_string(hide_password=True)
        raise DatabaseUnavailableError(f"{where} cannot be reached ({error}); see PENSTOCK_DATABASE_URL") from error


async def is_current(database: Database) -> bool:
    """Whether the schema is at (or past) this version's revision."""
    async with database.read() as connection:
        return await connection.run_sync(_is_current)


def _is_current(connection: sa.Connection) -> bool:
    scripts = ScriptDirectory.from_config(config())
    found = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    # Past it: a newer process has expanded it.
    return bool(found) and (scripts.get_current_head() in found or not set(found) <= known)


def _upgrade(connection: sa.Connection) -> None:
    if _is_current(connection):
        return
    alembic = config()
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, "head")
