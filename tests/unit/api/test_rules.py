"""Rules through the API, and from the watched directory."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness, harness

from penstock.automations import RuleSet, load_texts
from penstock.automations.deployments import DeploymentModel
from penstock.services.database import clock, tables
from penstock.services.deployments import FlowOffer, Offer, deploy
from penstock.services.rule_files import RulesWatcher
from penstock.services.rules import Applied, Refused, apply, registered_flows

URL = "/api/v1/namespaces/default/rules"
RULE = """
automations:
  - name: {name}
    when: {{event: order.placed}}
    then:
      - emit: {{type: order.seen}}
"""
RUNS = RULE.format(name="runs") + "      - run: reroute\n"
GOOD = {"a.yaml": RULE.format(name="one")}


async def revisions(api: Harness) -> list[dict[str, Any]]:
    async with api.database.read() as connection:
        query = sa.select(tables.revision).order_by(tables.revision.c.id)
        return [dict(row) for row in (await connection.execute(query)).mappings()]


async def register(api: Harness, name: str = "reroute") -> None:
    row = {"namespace": "default", "name": name, "pool": "default", "module": "flows", "parameters": "{}"}
    async with api.database.begin() as connection:
        await connection.execute(sa.insert(tables.flow).values(updated=clock.now(), **row))


async def post(api: Harness, files: dict[str, str], *, dry_run: bool = False, role: Any = "operator") -> Any:
    async with api.client(await api.key(role)) as client:
        return await client.post(URL, json={"files": files, "dry_run": dry_run})


async def test_applied_files_are_a_revision_with_its_author_an_audit_and_a_hint(api: Harness) -> None:
    answer = await post(api, GOOD)
    assert (answer.status_code, answer.json()["changed"]) == (200, True)
    [revision] = await revisions(api)
    assert (json.loads(revision["files"]), revision["actor"]) == (GOOD, "user/ann")
    assert "revision" in api.redis.published
    assert (await api.context.rulebook.refresh()).rules.rule("one") is not None
    async with api.database.read() as connection:
        actions = (await connection.execute(sa.select(tables.audit.c.action))).scalars().all()
    assert "revision.applied" in actions


async def test_the_same_files_again_are_no_new_revision(api: Harness) -> None:
    first, second = await post(api, GOOD), await post(api, GOOD)
    assert (second.json()["revision"], second.json()["changed"]) == (first.json()["revision"], False)
    assert len(await revisions(api)) == 1


async def test_mistakes_are_told_with_their_place_and_change_nothing(api: Harness) -> None:
    await post(api, GOOD)
    answer = await post(api, {"b.yaml": RULE.format(name="two").replace("emit:", "emti:")})
    problem = answer.json()["problems"][0]
    assert answer.status_code == 422
    assert (problem["file"], problem["line"]) == ("b.yaml", 6)
    assert "emit" in problem["message"] + problem["hint"]
    assert len(await revisions(api)) == 1


async def test_a_dry_run_changes_nothing(api: Harness) -> None:
    assert (await post(api, GOOD, dry_run=True)).json()["revision"] is None
    assert await revisions(api) == []


async def test_a_viewer_applies_nothing(api: Harness) -> None:
    assert (await post(api, GOOD, role="viewer")).status_code == 403


async def test_files_of_another_namespace_are_refused(api: Harness) -> None:
    answer = await post(api, {"a.yaml": "namespace: other\n" + RULE.format(name="one")})
    assert answer.status_code == 422
    assert "other" in answer.json()["problems"][0]["message"]


async def test_rules_are_not_limited_to_a_mebibyte_but_bounded(api: Harness) -> None:
    assert (await post(api, GOOD | {"b.yaml": "# " + "x" * (2 << 20)})).status_code == 200
    assert (await post(api, {"b.yaml": "x" * (20 << 20)})).status_code == 413


async def test_an_unknown_flow_is_refused_with_a_suggestion(api: Harness) -> None:
    await register(api)
    found = await apply(api.context, {"a.yaml": RUNS.replace("reroute", "rerouet")}, "user/ann", patience=0)
    assert isinstance(found, Refused)
    assert "did you mean `reroute`" in found.problems[0].hint


async def test_applying_waits_for_the_first_worker_to_say_what_it_can_run(api: Harness) -> None:
    applying = asyncio.create_task(apply(api.context, {"a.yaml": RUNS}, "user/ann", patience=30))
    while not applying.done() and not await registered_flows(api.database, "default"):
        await register(api)
    found = await applying
    assert isinstance(found, Applied)
    assert found.changed


async def test_without_any_worker_a_rule_that_runs_a_flow_is_refused_in_the_end(api: Harness) -> None:
    found = await apply(api.context, {"a.yaml": RUNS}, "user/ann", patience=0)
    assert isinstance(found, Refused)


@pytest.fixture
async def watched(sqlite_url: str, tmp_path: Path) -> AsyncIterator[tuple[Harness, RulesWatcher, Path]]:
    folder = tmp_path / "rules"
    async with harness(sqlite_url, rules=(str(folder),)) as api:
        yield api, RulesWatcher(api.context), folder


Watched = tuple[Harness, RulesWatcher, Path]


async def test_a_directory_is_applied_as_it_changes(watched: Watched) -> None:
    api, watcher, folder = watched
    await watcher.look()
    assert await revisions(api) == []
    folder.mkdir()
    for name in ("one", "two"):
        (folder / "a.yaml").write_text(RULE.format(name=name))
        await watcher.look()
        await watcher.look()
    assert [list(json.loads(row["files"])) for row in await revisions(api)] == [["a.yaml"]] * 2
    assert {row["actor"] for row in await revisions(api)} == {"system"}


async def test_a_folder_that_is_gone_withdraws_nothing_and_is_told_by_its_path(watched: Watched) -> None:
    api, watcher, folder = watched
    folder.mkdir()
    (folder / "a.yaml").write_text(RULE.format(name="one"))
    await watcher.look()
    folder.rename(folder.with_name("rules.off"))
    await watcher.look()
    assert [problem.file for problem in watcher.problems] == [str(folder)]
    assert "PENSTOCK_RULES" in watcher.problems[0].hint
    assert len(await revisions(api)) == 1
    folder.with_name("rules.off").rename(folder)
    await watcher.look()
    assert watcher.problems == ()
    (folder / "a.yaml").unlink()  # emptied on purpose
    await watcher.look()
    assert json.loads((await revisions(api))[-1]["files"]) == {}


async def test_one_of_two_folders_that_is_missing_keeps_the_rules_of_both(sqlite_url: str, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / f"{folder.name}.yaml").write_text(RULE.format(name=folder.name))
    async with harness(sqlite_url, rules=tuple(str(folder) for folder in folders)) as api:
        watcher = RulesWatcher(api.context)
        await watcher.look()
        shutil.rmtree(folders[1])
        await watcher.look()
        assert [problem.file for problem in watcher.problems] == [str(folders[1])]
        assert [sorted(json.loads(row["files"])) for row in await revisions(api)] == [["first.yaml", "second.yaml"]]


async def test_the_default_folder_that_nobody_has_made_yet_is_said_and_no_mistake(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with harness(sqlite_url, rules=("rules",)) as api:
        watcher = RulesWatcher(api.context)
        await watcher.look()
        assert (watcher.missing, watcher.problems) == ((Path("rules"),), ())
        Path("rules").mkdir()
        Path("rules/a.yaml").write_text(RULE.format(name="one"))
        await watcher.look()
        Path("rules").rename("rules.off")
        await RulesWatcher(api.context).look()  # a new start: what the folder held is in force, so its loss is told
        again = RulesWatcher(api.context)
        await again.look()
        assert [problem.file for problem in again.problems] == ["rules"]


async def test_a_refusal_names_the_file_as_the_user_does_and_only_what_is_wrong(watched: Watched) -> None:
    api, watcher, folder = watched
    await register(api)
    folder.mkdir()
    (folder / "a.yaml").write_text(RUNS + "  - name: broken\n")
    await watcher.look()
    assert {problem.file for problem in watcher.problems} == {str(folder / "a.yaml")}
    assert not [problem for problem in watcher.problems if "could not be checked" in problem.message]


async def test_whoever_stops_watching_lets_another_one_at_once(watched: Watched) -> None:
    api, watcher, folder = watched
    folder.mkdir()
    (folder / "a.yaml").write_text(RULE.format(name="one"))
    running = asyncio.create_task(watcher.run())
    async with asyncio.timeout(20):
        while len(await revisions(api)) < 1:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    assert await RulesWatcher(replace(api.context, instance="another")).look()


async def test_a_broken_file_leaves_the_last_good_revision_and_is_told(watched: Watched) -> None:
    api, watcher, folder = watched
    folder.mkdir()
    (folder / "a.yaml").write_text(RULE.format(name="one"))
    await watcher.look()
    (folder / "a.yaml").write_text("automations: [")
    await watcher.look()
    assert watcher.problems
    assert len(await revisions(api)) == 1
    (folder / "a.yaml").write_text(RULE.format(name="three"))
    await watcher.look()
    assert not watcher.problems
    assert len(await revisions(api)) == 2


async def test_a_refusal_for_want_of_a_flow_is_mended_by_its_registration(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, watcher, folder = watched
    await register(api, "other")
    folder.mkdir()
    (folder / "a.yaml").write_text(RUNS)
    await watcher.look()
    assert watcher.problems
    await register(api)
    await watcher.look()
    assert not watcher.problems
    assert len(await revisions(api)) == 1


async def test_of_two_watchers_one_leads_and_the_other_takes_over(watched: Watched) -> None:
    api, first, folder = watched
    second = RulesWatcher(replace(api.context, instance="another"))
    folder.mkdir()
    await first.look()
    (folder / "a.yaml").write_text(RULE.format(name="one"))
    await second.look()
    assert await revisions(api) == []
    async with api.database.begin() as connection:
        await connection.execute(sa.update(tables.lease).values(lease_until=0))
    await second.look()
    assert len(await revisions(api)) == 1


async def test_the_running_watcher_sees_a_change_by_itself(watched: Watched) -> None:
    api, watcher, folder = watched
    folder.mkdir()
    running = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(20):
            (folder / "a.yaml").write_text(RULE.format(name="one"))
            while len(await revisions(api)) < 1:
                await asyncio.sleep(0.05)
            (folder / "b.yml").write_text(RULE.format(name="two"))
            while len(await revisions(api)) < 2:
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_others_are_answered_while_many_rules_are_read(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(*args: Any, **options: Any) -> RuleSet:
        assert answered.wait(20), "the loop stood still"
        return load_texts(*args, **options)

    monkeypatch.setattr("penstock.services.rules.load_texts", slow)
    applying = asyncio.create_task(post(api, GOOD))
    async with api.client(await api.key("viewer")) as client:
        assert (await client.get(URL)).status_code == 200
    answered.set()
    assert (await applying).status_code == 200


async def test_a_rule_may_run_a_deployment_and_need_not_say_what_it_has_a_default_for(api: Harness) -> None:
    schema = {"properties": {"truck": {"type": "string"}, "stops": {"type": "integer"}}, "required": ["truck", "stops"]}
    model = DeploymentModel.model_validate({"name": "nightly", "flow": "reroute", "parameters": {"stops": 3}})
    await deploy(api.database, "default", [Offer(model, FlowOffer("reroute", "trucks", schema))], actor="user/ann")
    rule = RULE.format(name="runs") + "      - {run: NAME, with: {truck: '7'}}\n"
    assert (await post(api, {"a.yaml": rule.replace("NAME", "nightly")})).status_code == 200
    refused = (await post(api, {"a.yaml": rule.replace("NAME", "reroute")})).json()["problems"]
    assert [each["message"] for each in refused] == ["flow `reroute` needs the parameter `stops`"]
    refused = (await post(api, {"a.yaml": rule.replace("NAME", "nightlly")})).json()["problems"]
    assert refused[0]["hint"] == "did you mean `nightly`?"
