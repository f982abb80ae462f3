"""The examples of docs/workers.md are a project file and a rule file that load, and its flags are there."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from typer.testing import CliRunner

from penstock.automations import load_texts
from penstock.automations.actions import RunStep
from penstock.automations.durations import format_duration
from penstock.automations.pools import Kind, Kubernetes, Order
from penstock.services.cli.worker import app
from penstock.services.project import load_settings

PAGE = (Path(__file__).parents[3] / "docs/workers.md").read_text(encoding="utf-8")
SECOND = timedelta(seconds=1)
PROJECT, RULES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_project_file_says_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text(PROJECT)
    default, reports, imports, boxed, cluster = load_settings(tmp_path).pools
    assert (default.name, default.kind, default.recycle, default.drain) == ("default", Kind.INLINE, 1_000, 5 * SECOND)
    assert (reports.kind, reports.memory, reports.drain) == (Kind.PROCESS, 2 << 30, 600 * SECOND)
    assert (imports.recycle, imports.order) == (50, Order.STRICT)
    assert (boxed.kind, boxed.cpus, boxed.network) == (Kind.DOCKER, 1.5, "none")
    assert cluster.kind is Kind.KUBERNETES
    assert cluster.kubernetes is not None
    assert (cluster.kubernetes.namespace, cluster.kubernetes.secrets) == ("flows", ("flows-env",))


def test_the_settings_of_a_cluster_are_all_told_with_their_defaults() -> None:
    table = PAGE.partition("`kubernetes:` says more:")[2].partition("\n\nJobs and pods")[0]
    told = {key: value.strip() for key, value in re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", table, re.MULTILINE)}
    assert set(told) == set(Kubernetes.model_fields)
    plain = Kubernetes()
    assert told["start"] == "10m" == format_duration(plain.start // timedelta(microseconds=1))
    assert told["deadline"] == "1d" == format_duration(plain.deadline // timedelta(microseconds=1))
    assert told["ttl"] == "5m" == format_duration(plain.ttl // timedelta(microseconds=1))


def test_the_rule_file_loads_and_says_how_urgent_a_run_is() -> None:
    (rule,) = load_texts({"rules.yaml": RULES}).require().rules
    (step,) = rule.then
    assert isinstance(step, RunStep)
    assert (step.pool, step.queue, step.priority) == ("imports", "bulk", -5)


def test_the_flags_are_there() -> None:
    flags = set(re.findall(r"`(--[a-z]+)", PAGE)) | {"--pool"}
    shown = CliRunner().invoke(app, ["start", "--help"], terminal_width=200).output
    assert flags == {"--pool", "--name", "--limit", "--queues", "--kind", "--drain"}
    assert all(flag in shown for flag in flags)
