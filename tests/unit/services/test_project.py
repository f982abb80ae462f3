"""`penstock.yaml`: what it may hold, and how a mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.services.project import ProjectFileError, load_settings


def settings_of(folder: Path, text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    (folder / "penstock.yaml").write_text(text)
    found = load_settings(folder)
    return found.namespace, found.rules, found.flows


def test_one_folder_needs_no_list(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "rules: more/\nflows: [a.py, b.py]\n") == ("default", ("more/",), ("a.py", "b.py"))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "# nothing yet\n") == ("default", ("rules",), ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("namespace: a\nrule: x\n", "penstock.yaml:2:1: unknown key `rule` (did you mean `rules`?; known:"),
        ("namespace: a\nrules: {a: 1}\n", "penstock.yaml:2:1: `rules`: Input should be a valid list"),
        ("rules:\n  - [\n", "penstock.yaml:3:1: not YAML"),
        (
            "pools: [{name: a, kind: proces}]\n",
            "penstock.yaml:1:1: `pools.0.kind`: Input should be 'inline', 'process'",
        ),
        ("pools: [{name: a, memory: 2 beers}]\n", "penstock.yaml:1:1: `pools.0.memory`: Value error, '2 beers' is no"),
        (
            "pools: [{name: a, kind: docker}]\n",
            "penstock.yaml:1:1: `pools.0`: Value error, a pool of kind docker needs",
        ),
        ("- rules\n", "penstock.yaml:1:1: it is a mapping of namespace, rules, flows"),
        ("namespace: a\nnamespace: b\n", "penstock.yaml:2:1: not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ProjectFileError) as found:
        settings_of(tmp_path, text)
    assert str(found.value).startswith(told)
    assert "\n" not in str(found.value)
