"""`penstock run --watch` with a worker and its real child: what a user sees, on both databases."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.fake_bus import FakeBus
from tests.support.runs import migrated
from tests.support.served import served
from tests.support.workers import connected, working

from penstock.services.cli import main
from penstock.services.settings import Settings

FLOWS = """
from penstock.flows import artifact, flow, get_logger, task


@task
def load(truck: str, stop: int) -> str:
    artifact.progress(50, key="loading")
    return f"{truck}: stop {stop}"


@flow(tags=["erp"])
def ship(truck: str, stops: list[int], broken: bool = False) -> list[str]:
    get_logger().info("off we go")
    found = [load(truck, stop) for stop in stops]
    if broken:
        raise ValueError("a flat tyre")
    return found
"""


Penstock = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def penstock(
    any_database_url: str,
    redis_url: str,
    redis_bus_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Penstock]:
    """Run a command, while an API and a worker are up.  Returns its exit code, what it printed, and its complaints."""
    (tmp_path / "trucks.py").write_text(FLOWS)
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(str(tmp_path / "trucks.py"),),
        concurrency=1,
    )
    async with (
        migrated(any_database_url),
        connected(settings) as context,
        served(any_database_url, FakeBus(), data_dir=tmp_path) as api,
        working(context),
    ):
        monkeypatch.setenv("PENSTOCK_API_URL", api.url)
        monkeypatch.setenv("PENSTOCK_API_KEY", api.key)
        monkeypatch.setenv("COLUMNS", "200")

        def command(*arguments: str) -> int:
            monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
            try:
                main()
            except SystemExit as ended:
                return int(ended.code or 0)
            return 0

        async def run(*arguments: str) -> tuple[int, str, str]:
            capsys.readouterr()
            code = await asyncio.to_thread(command, *arguments)
            return code, *capsys.readouterr()

        yield run


async def test_a_run_is_watched_to_its_end_shown_and_tried_again(penstock: Penstock) -> None:
    given = ("-p", "truck=7", "-p", "stops=[1, 2]")
    code, out, err = await penstock("run", "ship", *given, "--watch")
    assert (code, err) == (0, ""), err
    words = [line.split(maxsplit=1)[1] for line in out.splitlines()[1:-1]]
    assert words.count("TASK     load completed") == 2
    assert "INFO     off we go" in words
    assert "ARTIFACT  progress loading 50.0" in words
    assert out.splitlines()[-1].endswith(': completed: ["7: stop 1", "7: stop 2"]')
    code, out, err = await penstock("run", "ship", *given, "-p", "broken=true", "--watch")
    assert (code, out.splitlines()[-1].endswith(": failed: ValueError: a flat tyre")) == (1, True)
    run_id = out.split()[1]
    code, out, _ = await penstock("runs", "show", run_id)
    assert 'raise ValueError("a flat tyre")' in out[out.index("trace") :]
    assert await penstock("runs", "retry", run_id) == (0, f"{run_id}: is tried again\n", "")
