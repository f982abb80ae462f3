"""What a former process held, and what people see of a fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from penstock.services.api.service import AddressError
from penstock.services.cli.complaints import complaint
from penstock.services.database import connect, migrate
from penstock.services.database.tables import delivery, outbox, run, worker
from penstock.services.former import release_former
from penstock.services.processes import configure_logging

FAR = 2**53


async def test_runs_and_deliveries_of_a_dead_process_are_due_at_once_and_its_worker_is_told_as_gone(
    tmp_path: Path,
) -> None:
    database = connect(f"sqlite:///{tmp_path / 'state.db'}")
    try:
        await migrate.upgrade(database)
        async with database.begin() as connection:
            held = {"lease_until": FAR, "created": 1, "epoch": 3}
            await connection.execute(
                sa.insert(run).values(id="r", flow="f", state="running", parameters="{}", worker="dead", **held)
            )
            await connection.execute(
                sa.insert(delivery).values(id="d", channel="c", status="pending", body="{}", owner="dead", **held)
            )
            await connection.execute(
                sa.insert(worker).values(id="dead", pool="default", host="h", pid=1, started=1, seen=FAR)
            )
        await release_former(database)
        async with database.read() as connection:
            rows = [(await connection.execute(sa.select(table))).one() for table in (run, delivery)]
            assert [(row.lease_until, row.epoch) for row in rows] == [(0, 3), (0, 3)]
            assert (await connection.execute(sa.select(worker))).all() == []
            assert len((await connection.execute(sa.select(outbox))).all()) == 1
    finally:
        await database.close()


def test_a_traceback_in_the_log_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        configure_logging("INFO", json=False)
        try:
            secret = "hush" + "hush"
            raise ValueError(len(secret))
        except ValueError:
            structlog.get_logger().exception("service.failed")
        told = capsys.readouterr().err
    finally:
        structlog.reset_defaults()
    assert "ValueError: 8" in told
    assert "hushhush" not in told


def test_the_cause_among_the_failures_of_several_services_is_the_line_and_our_own_faults_keep_their_stack() -> None:
    group = ExceptionGroup("services", [ExceptionGroup("more", [AddressError("127.0.0.1:1 is in use")])])
    assert complaint(group) == "127.0.0.1:1 is in use"
    assert complaint(ValueError("a fault of ours")) is None
