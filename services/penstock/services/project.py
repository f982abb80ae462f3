"""`penstock.yaml` at the root of a user's project: defaults for the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from penstock.events.errors import PenstockError
from penstock.services.settings import Settings

FILE = "penstock.yaml"


class ProjectFileError(PenstockError):
    """`penstock.yaml` cannot be used; the text says where and why."""


class ProjectFile(BaseModel):
    """What `penstock.yaml` may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: str | None = None
    rules: list[str] | None = None
    flows: list[str] | None = None


def load_settings(folder: Path | None = None, **overrides: Any) -> Settings:
    """The settings: overrides, else PENSTOCK_*, else `penstock.yaml`, else the defaults.  Raises ProjectFileError."""
    found = _read((folder or Path.cwd()) / FILE).model_dump(exclude_none=True)
    chosen = {name: value for name, value in found.items() if f"PENSTOCK_{name.upper()}" not in os.environ}
    return Settings(**{**chosen, **overrides})


def _read(path: Path) -> ProjectFile:
    if not path.exists():
        return ProjectFile()
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}
        return ProjectFile.model_validate(content)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ProjectFileError(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProjectFileError(f"{path}: {where}: {first['msg']}; known keys are namespace, rules, flows") from None
