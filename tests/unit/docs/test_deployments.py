"""Every example of docs/deployments.md is so, and the example project can be deployed."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from tests.support.command_line import Running

from penstock.automations.deployments import DeploymentModel
from penstock.services.deployments import Offer
from penstock.services.offers import offers_of
from penstock.services.project import read_file
from penstock.services.serving import offer_of

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/deployments.md").read_text(encoding="utf-8")
FLOW, DEPLOYING, SERVING = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(FILE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_file_of_the_page_is_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/trucks.py").write_text(FLOW)
    (tmp_path / "penstock.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    project = read_file(Path("penstock.yaml"))
    (offer,) = offers_of(project.deployments, project.flows or ())
    assert (offer.flow.name, len(offer.model.schedules)) == ("reroute", 3)
    said = set(offer.model.model_fields_set)
    assert said == set(DeploymentModel.model_fields), "the page shows every key"


def test_the_program_that_deploys_prints_what_became_of_it(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trucks.py").write_text(DEPLOYING)
    for became in ("created", "unchanged"):
        runpy.run_path(str(tmp_path / "trucks.py"), run_name="__main__")
        assert capsys.readouterr().out == f"{became}\n"


def test_the_program_that_serves_asks_for_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Offer] = []

    class Server:
        def serve(self, flow: Any, definition: dict[str, Any]) -> None:
            asked.append(offer_of(flow, definition))

    monkeypatch.setitem(sys.modules, "penstock.services.serving", cast("ModuleType", Server()))
    (tmp_path / "heartbeat.py").write_text(SERVING)
    runpy.run_path(str(tmp_path / "heartbeat.py"), run_name="__main__")
    (offer,) = asked
    assert (offer.model.name, offer.model.flow) == ("heartbeat", "heartbeat:heartbeat")
    assert (offer.model.schedules[0].every, offer.model.parameters) == (10_000_000, {"text": "alive"})


def test_the_example_project_is_deployed_and_its_rule_checked(
    running: Running, penstock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "examples/reports")
    assert penstock("deploy") == (0, "created    sales-report\ncreated    stock-check\n", "")
    assert penstock("rules", "check", "--flows", "flows/reports.py") == (0, "1 rule, nothing wrong\n", "")
