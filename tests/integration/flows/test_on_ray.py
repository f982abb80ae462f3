"""Tasks on Ray; collected where it is installed."""

from __future__ import annotations

from pathlib import Path

from tests.support.bodies import check_refusals, check_runner

from penstock.flows import RayRunner


def test_a_flow_spreads_over_ray(tmp_path: Path) -> None:
    runner = RayRunner(init={"num_cpus": 2})
    assert len(check_runner(runner, str(tmp_path))) >= 1
    assert "cannot go to another process" in check_refusals(runner)
