"""`penstock up` as a newcomer meets it: what it says when it begins, refuses, is killed and comes back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.embedded import Up, open_up
from tests.support.rig import until

from penstock.services.database import connect
from penstock.services.database.tables import lease, position, revision

RULE = """
automations:
  - name: {name}
    when: {{event: order.placed}}
    then: [{{emit: {{type: order.seen}}}}]
"""


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    """Run `penstock …`, which has to end with 1 and one line on standard error.  Returns the line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    command = [sys.executable, "-m", "penstock.services.cli", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


async def rows(up: Up, query: Any, *, write: bool = False) -> list[Any]:
    database = connect(f"sqlite:///{up.data / 'state.db'}")
    try:
        async with database.begin() if write else database.read() as connection:
            found = await connection.execute(query)
            return list(found.all()) if found.returns_rows else []
    finally:
        await database.close()


def log(up: Up) -> str:
    return (up.folder / "log.txt").read_text()


def banner(up: Up) -> str:
    return log(up).rpartition("Penstock is up")[2]


async def told(up: Up, text: str) -> None:
    async def said() -> bool:
        return text in log(up)

    await until(said, what=text)


async def test_a_start_after_a_kill_waits_for_no_lease_of_the_dead_and_changed_rules_are_in_force(
    tmp_path: Path,
) -> None:
    async with open_up(tmp_path, RULE.format(name="one")) as up:
        await told(up, "Ctrl-C stops it")
        up.end(signal.SIGKILL)
        for table in (lease, position):  # as if each had been taken for an hour just before
            await rows(up, sa.update(table).values(lease_until=sa.literal(2**53), owner="dead"), write=True)
        (tmp_path / "rules" / "rules.yaml").write_text(RULE.format(name="two"))
        await up.start()
        newest = await rows(up, sa.select(revision.c.files).order_by(revision.c.id.desc()).limit(1))
        assert "two" in json.loads(newest[0].files)["rules.yaml"]
        assert not await rows(up, sa.select(position).where(position.c.owner == "dead"))
        async with up.client() as client:
            event = {"specversion": "1.0", "id": "1", "source": "/t", "type": "order.placed"}
            answer = await client.post(
                "/events",
                content=json.dumps(event),
                headers={"Content-Type": "application/cloudevents+json"},
            )
        assert answer.status_code == 202, answer.text

        async def decided() -> bool:
            return [each.automation for each in await up.decisions()] == ["two"]

        await until(decided, what="a decision by the new rule")
        up.end(signal.SIGTERM)
        assert log(up).endswith("stopped; everything is kept under .penstock\n")


async def test_the_banner_is_the_last_that_is_said_and_names_what_is_wrong_with_the_rules(tmp_path: Path) -> None:
    async with open_up(tmp_path, "automations:\n  - name: one\n") as up:
        await told(up, "Ctrl-C stops it")
        assert "refused; no rules are in force\n    rules/rules.yaml:2:" in banner(up)
        assert "flows       none" in banner(up)
        assert log(up).count("ownership.taken") == 1
        assert "engine.revision" not in log(up)
        assert banner(up).splitlines()[-1].startswith("  Ctrl-C stops it")
        assert "--data-dir" in (line := refused(tmp_path, "up", "--port", "0"))
        assert "--port" in line


async def test_a_start_without_the_rules_folder_says_so_and_goes_on(tmp_path: Path) -> None:
    up = Up(tmp_path)
    await up.start()
    try:
        await told(up, "Ctrl-C stops it")
        assert "the folder rules is missing; make it, or set PENSTOCK_RULES" in banner(up)
    finally:
        up.end(signal.SIGKILL)


async def test_a_flow_file_that_is_broken_is_told_in_the_banner(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("flows: flows.py\n")
    (tmp_path / "flows.py").write_text("x = 1\ndef f(:\n")
    async with open_up(tmp_path, RULE.format(name="one")) as up:
        await told(up, "Ctrl-C stops it")
        [line] = [each for each in banner(up).splitlines() if "flows.py" in each]
        assert "flows       none" in banner(up)
        assert "2" in line
        assert "SyntaxError" in line


def test_a_port_in_use_is_one_line_and_the_end(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        line = refused(tmp_path, "up", "--port", str(port))
    assert f"127.0.0.1:{port} is in use; stop what listens there" in line
    assert "PENSTOCK_PORT" in line


@pytest.mark.parametrize("command", [("db", "upgrade"), ("up", "--port", "0")], ids=["upgrade", "up"])
def test_a_database_that_refuses_is_one_line_without_its_password(tmp_path: Path, command: tuple[str, ...]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening: refuses
        url = f"postgresql://me:hushhush@127.0.0.1:{free.getsockname()[1]}/x"
        line = refused(tmp_path, *command, PENSTOCK_DATABASE_URL=url)
    assert "cannot be reached" in line
    assert "PENSTOCK_DATABASE_URL" in line
    assert "hushhush" not in line


def test_a_setting_or_folder_that_cannot_be_used_is_one_line_with_its_name(tmp_path: Path) -> None:
    assert "PENSTOCK_DATABASE_URL" in refused(tmp_path, "db", "upgrade", PENSTOCK_DATABASE_URL="foo")
    assert "PENSTOCK_PORT" in refused(tmp_path, "up", PENSTOCK_PORT="abc")
    assert "--port" in refused(tmp_path, "up", "--port", "99999")
    (tmp_path / "file").touch()
    assert "--data-dir" in refused(tmp_path, "up", "--data-dir", "file")
