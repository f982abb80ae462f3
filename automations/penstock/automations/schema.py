"""The JSON Schema of rule files, for editors: every key with its default."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from penstock.automations import models
from penstock.automations.durations import format_duration
from penstock.automations.files import SECTIONS
from penstock.automations.rules import DEFAULT_NAMESPACE

_SECTIONS = {
    "users": "People.",
    "groups": "People who decide or are told together.",
    "channels": "Where messages go.",
    "webhooks": "Requests that become events.",
    "sensors": "Measurements that become events.",
    "schedules": "Times that become events.",
    "limits": "Rates that hold for all flows that name them.",
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def export_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) that accepts every rule file that can be loaded; what it cannot say, `check` does."""
    sections: dict[str, Any] = {
        name: (list[kind], Field([], description=_SECTIONS[name]))  # type: ignore[valid-type]  # built from a table
        for name, kind in SECTIONS.items()
    }
    file = create_model(
        "RuleFile",
        __base__=models.Keys,
        namespace=(models.Name, Field(DEFAULT_NAMESPACE, description="Where the names of this file belong.")),
        vars=(dict[str, Any], Field({}, description="Values that templates name as `vars.NAME`.")),
        defaults=(models.Defaults, Field(models.Defaults(), description="For rules that do not say otherwise.")),
        automations=(list[models.AutomationModel], Field([], description="The rules.")),
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
