"""Tasks on Dask: a cluster of one's own, and a scheduler with two workers in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from tests.support.bodies import check_refusals, check_runner

from penstock.flows import DaskRunner, RunnerError, flow, task

ROOT = Path(__file__).parents[3]
LOCAL = {"n_workers": 1, "threads_per_worker": 2, "processes": True}


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    assert len(check_runner(DaskRunner(cluster=LOCAL), str(tmp_path))) == 1


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with two workers, which have Penstock installed and know no more."""
    dask = [sys.executable, "-m", "distributed.cli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    file = tmp_path / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []
    try:
        command = ["dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file"]
        started.append(subprocess.Popen([*dask[:2], f"{dask[2]}.{command[0]}", *command[1:], str(file)], **quiet))  # type: ignore[call-overload]  # mypy cannot see through **
        for name in ("one", "two"):
            command = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name]
            started.append(subprocess.Popen([*dask[:2], f"{dask[2]}.dask_worker", *command], **quiet))  # type: ignore[call-overload]  # as above
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for process in started:  # what they still hold is nobody's: Dask's own way to stop may wait for a lost peer
            process.kill()
        for process in started:
            process.wait(20)


def test_a_scheduler_with_two_workers_in_other_processes(scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "tries").mkdir()
    assert len(check_runner(DaskRunner(scheduler), str(tmp_path / "tries"))) == 2
    assert "cannot go to another process" in check_refusals(DaskRunner(scheduler))

    @task
    def where() -> int:
        return os.getpid()

    @flow(runner=DaskRunner(scheduler, max_workers=1))
    def goes() -> int:
        return where.submit().result()

    assert goes() != os.getpid()


def test_a_scheduler_that_is_not_there_is_told() -> None:
    @task
    def work() -> None: ...

    @flow(runner=DaskRunner("tcp://127.0.0.1:9"))
    def goes() -> None:
        work.submit().result()

    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(RunnerError, match=r"127\.0\.0\.1"),
    ):
        goes()
