"""`penstock keys`: how the first key comes into a production database, and how one is taken away."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import sqlalchemy as sa

from penstock.services.api.keys import create_sign_in, find_key
from penstock.services.api.sessions import find_session, sign_in
from penstock.services.cli import main
from penstock.services.database import Database, connect, migrate, tables

Result = TypeVar("Result")
Penstock = Callable[..., tuple[int, str, str]]


@pytest.fixture
def penstock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Penstock:
    """Run a command.  Returns (exit code, what it printed, what it complained about)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def production(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    on(postgres_url, migrate.upgrade)
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", postgres_url)
    return postgres_url


def on(url: str, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = connect(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def audited(url: str) -> list[tuple[str, str]]:
    async def read(database: Database) -> list[tuple[str, str]]:
        async with database.read() as connection:
            rows = await connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))
            return [(row.action, row.actor) for row in rows if row.action.startswith("key.")]

    return on(url, read)


def test_a_key_that_was_made_opens_the_door_and_is_shown_once(penstock: Penstock, production: str) -> None:
    code, out, err = penstock("keys", "create", "--actor", "user/ann", "--role", "approver", "--role", "operator")
    assert (code, out.count("\n")) == (0, 1), "only the key is on stdout, for `$(…)`"
    assert "user/ann" in err
    identity = on(production, lambda database: find_key(database, out.strip()))
    assert identity is not None
    assert (identity.actor, sorted(identity.roles)) == ("user/ann", ["approver", "operator"])

    code, listed, _ = penstock("keys", "list", "--json")
    (row,) = json.loads(listed)
    assert (row["id"], row["actor"], row["revoked"]) == (identity.key_id, "user/ann", None)
    assert out.startswith(row["begins"] + "_")
    assert out.strip().removeprefix(row["begins"] + "_") not in listed


def test_a_revoked_key_and_its_sessions_are_nobody_any_more(penstock: Penstock, production: str) -> None:
    key = penstock("keys", "create", "--actor", "user/ann", "--role", "viewer")[1].strip()
    identity = on(production, lambda database: find_key(database, key))
    assert identity is not None

    async def opened(database: Database) -> str | None:
        return await sign_in(
            database, await create_sign_in(database, identity.key_id, namespace="default", by="user/ann")
        )

    cookie = on(production, opened)
    assert cookie is not None
    code, out, _ = penstock("keys", "revoke", identity.key_id)
    assert (code, "user/ann" in out) == (0, True)
    assert on(production, lambda database: find_key(database, key)) is None
    assert on(production, lambda database: find_session(database, cookie)) is None
    assert json.loads(penstock("keys", "list", "--json")[1])[0]["revoked"] is not None
    code, _, err = penstock("keys", "revoke", identity.key_id)
    assert (code, err.count("\n")) == (1, 1)


def test_each_change_of_a_key_is_audited_with_the_account_that_made_it(penstock: Penstock, production: str) -> None:
    penstock("keys", "create", "--actor", "service/shop", "--role", "operator")
    (row,) = json.loads(penstock("keys", "list", "--json")[1])
    penstock("keys", "revoke", row["id"])
    found = audited(production)
    assert [action for action, _ in found] == ["key.created", "key.revoked"]
    assert all(actor.startswith("shell/") for _, actor in found)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--actor", "ann", "--role", "viewer"], 1, "user/NAME"),
        (["--actor", "automation/x", "--role", "viewer"], 1, "user/NAME"),
        (["--actor", "user/ann", "--role", "owner"], 2, "approver"),
        (["--actor", "user/ann"], 2, "--role"),
    ],
)
def test_who_and_what_must_be_said_rightly(
    penstock: Penstock, production: str, arguments: list[str], code: int, text: str
) -> None:
    found, out, err = penstock("keys", "create", *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert audited(production) == []


@pytest.mark.parametrize("url", ["", "sqlite+aiosqlite:///state.db"])
def test_an_embedded_instance_says_that_it_has_its_key(
    penstock: Penstock, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", url)
    code, _, err = penstock("keys", "list")
    assert (code, err.count("\n")) == (1, 1)
    assert "PENSTOCK_DATABASE_URL" in err


def test_an_empty_database_and_an_absent_one_say_what_to_do(
    penstock: Penstock, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", postgres_url)
    code, _, err = penstock("keys", "list")
    assert (code, "penstock db upgrade" in err) == (1, True)
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", "postgresql+asyncpg://me:hidden@127.0.0.1:1/none")
    code, _, err = penstock("keys", "list")
    assert (code, "cannot be used" in err, "hidden" in err) == (1, True, False)
