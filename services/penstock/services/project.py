"""`penstock.yaml` at the root of a user's project: defaults for the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from penstock.automations.problems import did_you_mean
from penstock.events.errors import PenstockError
from penstock.services.pools import Pool
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
    pools: list[Pool] | None = None

    @field_validator("rules", "flows", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


KEYS = tuple(ProjectFile.model_fields)


def load_settings(folder: Path | None = None, **overrides: Any) -> Settings:
    """The settings: overrides, else PENSTOCK_*, else `penstock.yaml`, else the defaults.  Raises ProjectFileError."""
    found = _read((folder or Path.cwd()) / FILE).model_dump(exclude_none=True)
    chosen = {name: value for name, value in found.items() if f"PENSTOCK_{name.upper()}" not in os.environ}
    return Settings(**{**chosen, **overrides})


def _read(path: Path) -> ProjectFile:
    if not path.exists():
        return ProjectFile()
    try:
        content = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise ProjectFileError(f"{path.name}{where}: not YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise ProjectFileError(f"{path.name}: cannot be read: {' '.join(str(error).split())}") from None
    if content is None:
        return ProjectFile()
    try:
        return ProjectFile.model_validate(content)
    except ValidationError as error:
        raise ProjectFileError(_mistake(path, content, error)) from None


def _mistake(path: Path, content: Any, error: ValidationError) -> str:
    """The first mistake: file:line:column, what, and what to write instead."""
    first = error.errors(include_url=False)[0]
    if not isinstance(content, CommentedMap) or not first["loc"]:
        return f"{path.name}:1:1: it is a mapping of {', '.join(KEYS)}"
    key = first["loc"][0]
    line, column = content.lc.key(key)
    where = f"{path.name}:{line + 1}:{column + 1}"
    if key not in KEYS:
        return f"{where}: unknown key `{key}` ({did_you_mean(key, KEYS)}; known: {', '.join(KEYS)})"
    return f"{where}: `{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
