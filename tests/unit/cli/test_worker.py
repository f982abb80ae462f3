"""`penstock worker start`: what it refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.services.cli import main


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.yaml").write_text("pools: [{name: reports, kind: process}, imports]\n")
    return tmp_path


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The line that it ends with."""
    monkeypatch.setattr("sys.argv", ["penstock", "worker", "start", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--pool", "report"], "no pool 'report' under `pools:` of penstock.yaml (did you mean `reports`?)"),
        (["--pool", "reports", "--kind", "docker"], "a pool of kind docker needs an `image`"),
        (["--pool", "reports", "--drain", "5"], "--drain: '5' is no duration; write e.g. `30s`"),
        (["--pool", "imports", "--limit", "0"], "PENSTOCK_CONCURRENCY: Input should be greater than or equal to 1"),
        (["--pool", "imports"], "PENSTOCK_BUS_URL is not set"),
    ],
)
def test_what_cannot_be_started_is_told_in_a_line(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PENSTOCK_BUS_URL", "PENSTOCK_POOL", "PENSTOCK_POOLS"):
        monkeypatch.delenv(name, raising=False)
    assert told in refused(monkeypatch, capsys, *flags)


def test_two_pools_of_one_name_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "penstock.yaml").write_text("pools: [reports, reports]\n")
    assert "two pools are called reports; rename one" in refused(monkeypatch, capsys, "--pool", "reports")
