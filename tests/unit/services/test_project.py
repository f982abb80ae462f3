"""`penstock.yaml`: what it may hold, and how a mistake in it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.automations.deployments import ConcurrencyModel
from penstock.services.project import ProjectFileError, load_settings, read_file


def settings_of(folder: Path, text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    (folder / "penstock.yaml").write_text(text)
    found = load_settings(folder)
    return found.namespace, found.rules, found.flows


def test_one_folder_needs_no_list(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "rules: more/\nflows: [a.py, b.py]\n") == ("default", ("more/",), ("a.py", "b.py"))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "# nothing yet\n") == ("default", ("rules",), ())


def test_a_file_is_read_with_its_deployments(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("""
deployments:
  - name: nightly
    flow: trucks:reroute
    parameters: {truck: "7"}
    concurrency: {limit: 1, when_full: replace}
    schedules: [{cron: "0 3 * * *"}, {every: 5m, parameters: {truck: "8"}}, {rrule: FREQ=DAILY;BYHOUR=9}]
""")
    (found,) = read_file(tmp_path / "penstock.yaml").deployments
    assert (found.name, found.pool, found.concurrency) == ("nightly", "default", ConcurrencyModel(**LIMIT))
    assert [each.every for each in found.schedules] == [None, 300_000_000, None]


LIMIT: dict[str, Any] = {"limit": 1, "when_full": "replace"}
ONE = "deployments: [{name: a, flow: a:b, "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("namespace: a\nrule: x\n", "penstock.yaml:2:1: unknown key `rule` (did you mean `rules`?)"),
        ("namespace: a\nrules: {a: 1}\n", "penstock.yaml:2:8: `rules` must be a list"),
        ("rules:\n  - [\n", "penstock.yaml:3:1: not valid YAML"),
        ("- rules\n", "penstock.yaml:1:1: it is a mapping of namespace, rules, flows, deployments"),
        ("namespace: a\nnamespace: b\n", "penstock.yaml:2:1: "),
        (ONE + "tag: x}]", "penstock.yaml:1:36: unknown key `tag` in `deployments` (did you mean `tags`?)"),
        ("deployments: [{name: a}]", "penstock.yaml:1:15: `flow` is missing"),
        ("deployments: [{name: a, flow: 'a b'}]", 'penstock.yaml:1:31: "a b" names no flow; write `module:flow`'),
        (ONE + "concurrency: {limit: 0}}]", "penstock.yaml:1:57: `limit` must be at least 1, not 0"),
        (ONE + "schedules: [{}]}]", "penstock.yaml:1:48: a schedule of `a` has no time (write exactly one of"),
        (ONE + "schedules: [{every: 5m, cron: '* * * * *'}]}]", "penstock.yaml:1:48: a schedule of `a` has `cron` and"),
        (ONE + "schedules: [{every: 5m}, {every: 5m}]}]", "penstock.yaml:1:61: `a` has the same schedule twice"),
        (ONE + "schedules: [{cron: '61 * * * *'}]}]", "penstock.yaml:1:55: `cron`: '61' is no minute"),
        (
            "deployments: [{name: a, flow: f}, {name: a, flow: g}]",
            "penstock.yaml:1:42: deployment `a` is defined twice",
        ),
        ("pools: [{name: a, kind: proces}]\n", "penstock.yaml:1:25: `kind`: Input should be 'inline', 'process'"),
        ("pools: [{name: a, memory: 2 beers}]\n", "penstock.yaml:1:27: `memory`: '2 beers' is no size"),
        ("pools: [{name: a, kind: docker}]\n", "penstock.yaml:1:9: each of `pools`: a pool of kind docker needs"),
        (
            "pools: [{name: a, kind: kubernetes}]\n",
            "penstock.yaml:1:9: each of `pools`: a pool of kind kubernetes needs",
        ),
        (
            "pools: [{name: a, kubernetes: {deadline: 1h}}]\n",
            "penstock.yaml:1:9: each of `pools`: `kubernetes` is for pools of kind kubernetes",
        ),
        (
            "pools: [{name: a, kind: kubernetes, image: i, network: none}]\n",
            "penstock.yaml:1:9: each of `pools`: `network` is for pools of kind docker",
        ),
        (
            "pools: [{name: a, kind: kubernetes, image: i, kubernetes: {namespace: A_b}}]\n",
            'penstock.yaml:1:71: "A_b" does not have the right form',
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ProjectFileError) as found:
        settings_of(tmp_path, text)
    assert str(found.value).startswith(told)
    assert "\n" not in str(found.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectFileError) as found:
        settings_of(tmp_path, "rule: x\ndeployments: [{flow: a}]\n")
    assert [line.split(": ")[0] for line in str(found.value).splitlines()] == [
        "penstock.yaml:1:1",
        "penstock.yaml:2:15",
    ]
