"""Write the next migration from the difference between the tables and the migrated schema.

Use: `python -m scripts.make_migration "why" 0002`, then read what it wrote.
"""

import asyncio
import sys
import tempfile

from alembic import command
from sqlalchemy import Connection

from penstock.services.database import connect, migrate


def _revision(connection: Connection, message: str, number: str) -> None:
    alembic = migrate.config()
    alembic.attributes["connection"] = connection
    command.revision(alembic, message=message, autogenerate=True, rev_id=number)


async def main(message: str, number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = connect(f"sqlite+aiosqlite:///{folder}/schema.db")
        await migrate.upgrade(database)
        async with database.begin() as connection:
            await connection.run_sync(_revision, message, number)
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
