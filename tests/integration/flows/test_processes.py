"""Task runners whose bodies run in processes of this machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.bodies import check_refusals, check_runner, process

from penstock.flows import ProcessRunner, RunnerError, flow, task

SCRIPT = """
from penstock.flows import ProcessRunner, flow, task

FACTOR = 3

@task
def times(number: int) -> int:
    return helper(number) * FACTOR

@task
def helper(number: int) -> int:
    return number + 1

@flow(runner=ProcessRunner(max_workers=2))
def computes() -> list[int]:
    return times.map(range(4)).result()

if __name__ == "__main__":
    print(computes())
"""


def test_a_flow_spreads_over_processes(tmp_path: Path) -> None:
    assert 1 <= len(check_runner(ProcessRunner(max_workers=2), str(tmp_path))) <= 2


def test_what_cannot_travel_is_named() -> None:
    assert "task 'takes-a-lock' cannot go to another process" in check_refusals(ProcessRunner(max_workers=1))


def test_lines_logged_elsewhere_are_the_run_s(caplog: pytest.LogCaptureFixture) -> None:
    @flow(runner=ProcessRunner(max_workers=1))
    def asks() -> int:
        return process.submit(1).result()

    caplog.set_level(logging.INFO)
    asks()
    [record] = [each for each in caplog.records if each.getMessage() == "a line from elsewhere"]
    assert record.__dict__["task"] == "process"


def test_a_process_that_dies_is_told() -> None:
    @task
    def dies() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @flow(runner=ProcessRunner(max_workers=1))
    def runs() -> None:
        dies.submit().result()

    with pytest.raises(RunnerError, match="'dies', or one beside it, died"):
        runs()


def test_a_script_of_one_s_own_needs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[3, 6, 9, 12]\n", 0), done.stderr
