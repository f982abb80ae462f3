"""`penstock deploy` and `penstock deployments`, against an API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.command_line import Running
from tests.support.git import committed, git

from penstock.services.database import tables
from penstock.services.versions import version_of

FLOW = """
from penstock.flows import flow

@flow
def reroute(truck: str, stops: int = 1) -> str:
    return truck
"""
PROJECT = """
rules: [rules/]
flows: [flows/trucks.py]
deployments:
  - name: nightly
    flow: trucks:reroute
    parameters: {truck: "7"}
    tags: [logistics]
    concurrency: {limit: 2, when_full: cancel_new}
    schedules: [{cron: "0 3 * * *", timezone: Europe/Vienna}, {every: 1h, parameters: {stops: 3}}]
  - {name: by-hand, flow: reroute}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project under git, as the working directory."""
    folder = tmp_path / "project"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows/trucks.py").write_text(FLOW)
    (folder / "penstock.yaml").write_text(PROJECT)
    committed(folder)
    monkeypatch.chdir(folder)
    return folder


def rows(running: Running, table: sa.Table) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        async with running.api.context.database.read() as connection:
            return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]

    found: list[dict[str, Any]] = running.do(read())
    return found


def test_deploying_makes_what_the_file_says_and_again_changes_nothing(
    running: Running, penstock: Any, project: Path
) -> None:
    assert penstock("deploy") == (0, "created    nightly\ncreated    by-hand\n", "")
    assert penstock("deploy")[1].split() == ["unchanged", "nightly", "unchanged", "by-hand"]
    shown = json.loads(penstock("deployments", "show", "nightly", "--json")[1])
    assert (shown["flow"], shown["parameters"], shown["tags"]) == ("reroute", {"truck": "7"}, ["logistics"])
    assert (shown["concurrency"], shown["when_full"], shown["holding"]) == (2, "cancel_new", 0)
    assert shown["version"] == git(project, "rev-parse", "HEAD")
    said = {each.get("every") or each["cron"]: each for each in shown["schedules"]}
    assert said["1h"]["parameters"] == {"stops": 3}
    assert said["0 3 * * *"]["timezone"] == "Europe/Vienna"
    (flow,) = rows(running, tables.flow)
    assert (flow["name"], flow["module"], flow["version"]) == ("reroute", "trucks", shown["version"])
    actions = [row["action"] for row in rows(running, tables.audit)]
    assert actions.count("deployment.created") == 2
    listed = penstock("deployments", "list")[1]
    assert "nightly" in listed
    assert "0 of 2, 0 waiting (cancel_new)" in listed


def test_an_edit_is_told_by_its_parts_and_a_schedule_that_stays_keeps_its_time(
    running: Running, penstock: Any, project: Path
) -> None:
    penstock("deploy")
    before = {row["spec"]: row["next_at"] for row in rows(running, tables.deployment_schedule)}
    edited = PROJECT.replace('truck: "7"', 'truck: "8"').replace("{stops: 3}", "{stops: 4}")
    (project / "penstock.yaml").write_text(edited)
    code, told, _ = penstock("deploy", "nightly")
    dirty = git(project, "rev-parse", "HEAD") + "-dirty"
    assert (code, told) == (0, "updated    nightly: parameters, schedules\n")
    assert {row["spec"]: row["next_at"] for row in rows(running, tables.deployment_schedule)} == before
    (project / "flows/trucks.py").write_text(FLOW.replace("return truck", "return truck * 2"))
    assert penstock("deploy")[1] == "updated    nightly: version\nupdated    by-hand: version\n"
    assert {row["version"] for row in rows(running, tables.deployment)} == {dirty}


def test_pruning_removes_what_the_file_names_no_more(running: Running, penstock: Any, project: Path) -> None:
    penstock("deploy")
    (project / "penstock.yaml").write_text("flows: [flows/trucks.py]\ndeployments: [{name: by-hand, flow: reroute}]\n")
    assert penstock("deploy")[1] == "unchanged  by-hand\n"
    assert penstock("deploy", "--prune")[1] == "unchanged  by-hand\nremoved    nightly\n"
    assert rows(running, tables.deployment_schedule) == []
    assert penstock("deployments", "delete", "by-hand")[1] == "removed by-hand\n"
    assert penstock("deployments", "list")[1] == "no deployments: `penstock deploy` makes them\n"


def test_a_pause_outlasts_a_deployment_that_says_the_same_as_before(
    running: Running, penstock: Any, project: Path
) -> None:
    penstock("deploy")
    assert penstock("deployments", "pause", "nightly")[1] == "paused nightly\n"
    assert penstock("deployments", "pause", "nightly")[1] == "nightly is paused already\n"
    (project / "penstock.yaml").write_text(PROJECT.replace("[logistics]", "[trucks]"))
    assert penstock("deploy", "nightly")[1] == "updated    nightly: tags\n"
    assert json.loads(penstock("deployments", "show", "nightly", "--json")[1])["paused"] is True
    assert penstock("deployments", "unpause", "nightly")[1] == "unpaused nightly\n"
    assert penstock("deployments", "pause", "nothing")[0] == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('truck: "7"', "truck: 7", "deployment `nightly`: truck: Input should be a valid string"),
        ('truck: "7"', "lorry: x", "deployment `nightly`: lorry is no parameter of it (it takes: truck, stops)"),
        ('parameters: {truck: "7"}', "parameters: {}", "deployment `nightly`, schedule 1: truck is missing"),
        ("{stops: 3}", "{stops: many}", "deployment `nightly`, schedule 2: stops: Input should be a valid integer"),
        ("trucks:reroute", "trucks:reroutes", "there is no flow `trucks:reroutes` (did you mean `trucks:reroute`?)"),
        ("tags: [", "tag: [", "penstock.yaml:8:5: unknown key `tag` in `deployments` (did you mean `tags`?)"),
    ],
)
def test_what_does_not_fit_the_flow_is_refused_and_nothing_is_deployed(
    running: Running, penstock: Any, project: Path, old: str, new: str, told: str
) -> None:
    (project / "penstock.yaml").write_text(PROJECT.replace(old, new))
    code, _, complaint = penstock("deploy")
    assert code == 1
    assert told in complaint
    assert rows(running, tables.deployment) == []


def test_a_name_that_the_file_does_not_have_is_refused(running: Running, penstock: Any, project: Path) -> None:
    code, _, complaint = penstock("deploy", "nightlly")
    assert (code, "did you mean `nightly`?" in complaint) == (1, True)
    assert penstock("deploy", "nightly", "--prune")[0] == 1
    assert penstock("deploy", "--file", "other.yaml")[2].startswith("penstock: other.yaml: there is no such file")


def test_a_file_elsewhere_names_its_flows_from_where_it_stands(
    running: Running, penstock: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.parent)
    assert penstock("deploy", "--file", "project/penstock.yaml", "by-hand")[1] == "created    by-hand\n"


def test_the_api_checks_what_it_is_sent(running: Running, penstock: Any, project: Path) -> None:
    """Another client than ours may have checked nothing."""
    import httpx

    flow = {"name": "reroute", "module": "trucks", "parameters": {"properties": {"truck": {"type": "string"}}}}
    definition = {"name": "nightly", "flow": "reroute", "parameters": {"truck": 7}}
    where = f"{running.api.url}/api/v1/namespaces/default/deployments"
    key = {"Authorization": f"Bearer {running.api.key}"}

    def post(**changed: Any) -> httpx.Response:
        body = {"deployments": [{"definition": definition | changed, "flow": flow}]}
        return httpx.post(where, json=body, headers=key)

    assert "parameter `truck` must be text, not the number 7" in post().json()["detail"]
    assert "`tag`: Extra inputs" in post(tag=1).json()["detail"]
    assert post().status_code == post(tag=1).status_code == 422
    assert post(parameters={}).json()["changes"] == [{"name": "nightly", "what": "created", "parts": []}]


def test_a_folder_without_git_has_no_version(tmp_path: Path) -> None:
    assert version_of(tmp_path / "nowhere") is None
    git(tmp_path, "init", "--quiet")
    assert version_of(tmp_path) is None, "there is no commit yet"


def test_where_the_code_lies_without_git_the_environment_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CODE_VERSION", "v1.2")
    assert version_of(tmp_path) == "v1.2"


def test_rules_are_checked_against_the_deployments_of_the_project(penstock: Any, project: Path) -> None:
    (project / "rules").mkdir()
    steps = "[{run: nightly, with: {stops: 2}}, {run: by-hand}]"
    rule = f"automations:\n  - {{name: a, when: {{event: e}}, then: {steps}}}\n"
    (project / "rules/a.yaml").write_text(rule)
    code, _, complaint = penstock("rules", "check", "--flows", "flows/trucks.py")
    assert (code, complaint.count("\n")) == (1, 1)
    assert "flow `by-hand` needs the parameter `truck`" in complaint
