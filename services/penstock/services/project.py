"""`penstock.yaml` at the root of a user's project: defaults for the settings, and the project's deployments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from penstock.automations.deployments import ProjectModel, read_project
from penstock.events.errors import PenstockError
from penstock.services.settings import Settings

FILE = "penstock.yaml"


class ProjectFileError(PenstockError):
    """`penstock.yaml` cannot be used; the text says where and why."""


def load_settings(folder: Path | None = None, **overrides: Any) -> Settings:
    """The settings: overrides, else PENSTOCK_*, else `penstock.yaml`, else the defaults.  Raises ProjectFileError."""
    path = (folder or Path.cwd()) / FILE
    return settings_of(read_file(path) if path.exists() else ProjectModel(), **overrides)


def settings_of(project: ProjectModel, **overrides: Any) -> Settings:
    """As `load_settings`, with what stands in a file that was read."""
    found = {name: getattr(project, name) for name in ("namespace", "rules", "flows")} | {
        "pools": project.pools or None
    }
    chosen = {
        name: value
        for name, value in found.items()
        if value is not None and f"PENSTOCK_{name.upper()}" not in os.environ
    }
    return Settings(**{**chosen, **overrides})


def read_file(path: Path) -> ProjectModel:
    """What the file says.  Raises ProjectFileError with every mistake, each with its line and column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ProjectFileError(f"{path}: there is no such file; write one, or name another with --file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ProjectFileError(f"{path.name}: cannot be read: {' '.join(str(error).split())}") from None
    found, _, problems = read_project(path.name, text)
    if found is None:
        raise ProjectFileError("\n".join(str(problem) for problem in sorted(problems)))
    return found
