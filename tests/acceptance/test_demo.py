"""`make demo ONCE=1`: the main job on one machine with nothing prepared."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_plays_through_and_every_hop_happens() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, "-m", "examples.quickstart.demo"],
        cwd=ROOT,
        env={**environment, "ONCE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    for hop in ("automation.fired", "message.delivered", "approval.approved", "run.completed"):
        assert hop in done.stdout
    assert "slack to #ops" in done.stdout
    assert "twilio to" in done.stdout


def test_the_quickstart_s_rules_have_no_problem() -> None:
    from penstock.automations import load

    found = load(ROOT / "examples/quickstart/rules")
    assert [problem for problem in found.problems if problem.severity == "error"] == []
    assert {rule.name for rule in found.rules} == {"large-order", "machine-watched", "still-here"}
