"""PostgreSQL for the tests: a cluster of our own, durable (fsync stays on), otherwise tuned for short tests."""

from __future__ import annotations

import contextlib
import pwd
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from tests.support.services.install import find, in_folders, on_path
from tests.support.services.process import Given, Service, ServiceFailedError, in_a_thread, is_root, run

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # the path of a temporary folder may be too long for a socket
    "max_connections": "300",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "30min",
    "fsync": "on",  # the tests kill the server and count what it had acknowledged
    "timezone": "UTC",
}


class _Databases:
    """Databases by URL, asked from the server at `url`."""

    url = ""

    def create_database(self) -> str:
        """A new empty database; its URL for SQLAlchemy with asyncpg."""
        name = f"test_{uuid4().hex[:16]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return urlunsplit(urlsplit(self.url)._replace(scheme="postgresql+asyncpg", path=f"/{name}"))

    def drop_database(self, url: str) -> None:
        """Remove it with whoever is still connected."""
        name = urlsplit(url).path.lstrip("/")
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        in_a_thread(_execute(_plain(self.url), statement))


class PostgresServer(_Databases, Service):
    """An own server, run as another user where this one is root (PostgreSQL refuses root)."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": sessions are ended, nothing is recovered at the next start

    def __init__(self) -> None:
        self._programs = Path(
            find(
                lambda: in_folders("/usr/lib/postgresql/*/bin/initdb")() or on_path("initdb")(),
                what="PostgreSQL",
                packages=["postgresql"],
                variable="PENSTOCK_TEST_DATABASE_URL",
            )
        ).parent
        super().__init__(user=_other_user() if is_root() else None)

    @property
    def url(self) -> str:  # type: ignore[override]  # read-only here, and only read
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    def ready(self) -> bool:
        return answers(self.url)

    def _prepare(self, folder: Path) -> None:
        initdb = [str(self._programs / "initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        run([*initdb, "--locale=C", "--no-sync", f"--pgdata={folder}"], user=self._user, cwd=folder)

    def _command(self, folder: Path) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return [str(self._programs / "postgres"), "-D", str(folder), f"--port={self.port}", *settings]


class GivenPostgres(_Databases, Given):
    """The server behind PENSTOCK_TEST_DATABASE_URL; its user must be allowed to create databases."""

    name = "postgres"

    def __init__(self, url: str) -> None:
        self.url, self.port = url, urlsplit(url).port or 5432


def answers(url: str) -> bool:
    """Whether a session can be opened; a server that recovers refuses it."""
    try:
        in_a_thread(_execute(_plain(url), "SELECT 1"))
    except (OSError, asyncpg.exceptions.PostgresError, TimeoutError):
        return False
    return True


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        with contextlib.suppress(OSError):
            await connection.close(timeout=5)


def _plain(url: str) -> str:
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def _other_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise ServiceFailedError("PostgreSQL does not run as root and there is no user `postgres` or `nobody` to run it as")
