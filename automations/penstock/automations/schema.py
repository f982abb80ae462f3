"""The JSON Schema of rule files, for editors: every key with its default."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from penstock.automations import models
from penstock.automations.durations import format_duration
from penstock.automations.files import SECTIONS
from penstock.automations.rules import DEFAULT_NAMESPACE

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def export_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) that accepts every rule file that can be loaded; what it cannot say, `check` does."""
    sections: dict[str, Any] = {name: (list[kind], []) for name, kind in SECTIONS.items()}  # type: ignore[valid-type]  # built from a table
    file = create_model(
        "RuleFile",
        __base__=models.Keys,
        namespace=(models.Name, DEFAULT_NAMESPACE),
        vars=(dict[str, Any], Field({}, description="Values that templates name as `vars.NAME`.")),
        defaults=(models.Defaults, models.Defaults()),
        automations=(list[models.AutomationModel], []),
        **sections,
    )
    schema = file.model_json_schema(by_alias=True)
    return {
        "$schema": _DIALECT,
        "title": "Penstock rule file",
        **_as_written({**schema, "title": "Penstock rule file"}),
    }


def _as_written(node: Any) -> Any:
    """Durations and rates are integers inside; their defaults are shown as people write them."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _as_written(value) for key, value in node.items()}
    default = node.get("default")
    if isinstance(default, int) and not isinstance(default, bool) and node.get("type") == "string":
        node["default"] = format_duration(default)
    if isinstance(default, dict) and set(default) == {"count", "per"}:
        node["default"] = f"{default['count']}/{format_duration(default['per'])}"
    return node
