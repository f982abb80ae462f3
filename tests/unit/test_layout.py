"""The settings without which the layout fails silently: one namespace over five source roots."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["events", "triggers", "automations", "flows", "services"]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return found


@pytest.mark.parametrize("part", PARTS)
def test_the_namespace_belongs_to_no_part(part: str) -> None:
    assert not (ROOT / part / "penstock" / "__init__.py").exists()
    assert [path.name for path in (ROOT / part / "penstock").iterdir() if path.name != "__pycache__"] == [part]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_ships_its_types(part: str) -> None:
    assert (ROOT / part / "penstock" / part / "py.typed").exists()


@pytest.mark.parametrize("part", PARTS[:-1])  # nobody imports the services
def test_a_part_that_is_imported_names_what_is_public(part: str) -> None:
    assert "__all__" in (ROOT / part / "penstock" / part / "__init__.py").read_text()


def test_packaging_names_every_root(tool: dict[str, Any]) -> None:
    build = tool["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == [f"{part}/penstock" for part in PARTS]
    assert build["dev-mode-dirs"] == PARTS


def test_type_checkers_see_every_root(tool: dict[str, Any]) -> None:
    assert {f"{part}/penstock" for part in PARTS} <= set(tool["mypy"]["files"])
    assert set(tool["mypy"]["mypy_path"].split(":")) >= set(PARTS)
    assert tool["mypy"]["explicit_package_bases"]
    assert tool["mypy"]["namespace_packages"]
    assert set(tool["pyright"]["extraPaths"]) >= set(PARTS)


def test_linters_and_tests_see_every_root(tool: dict[str, Any]) -> None:
    assert set(tool["ruff"]["src"]) >= set(PARTS)
    assert set(tool["importlinter"]["root_packages"]) == {f"penstock.{part}" for part in PARTS}
    assert "--import-mode=importlib" in tool["pytest"]["ini_options"]["addopts"]


def test_requirements_are_pinned_and_name_no_host() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.strip()]
    assert all("==" in line for line in lines)
    assert not any("://" in line or line.startswith("-") for line in lines)
