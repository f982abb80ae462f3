"""Conditions against what is known of events: a field that no schema has is told before any event comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from penstock.automations.conditions import CelCondition, text_of
from penstock.automations.documents import Document
from penstock.automations.expressions import Node
from penstock.automations.problems import Path, Problem, did_you_mean

Schemas: TypeAlias = Mapping[str, Mapping[str, Any]]  # the JSON Schema of `data`, by event type


def problems_of_fields(
    condition: CelCondition, types: Sequence[str], schemas: Schemas, document: Document, path: Path
) -> Iterator[Problem]:
    """The fields of `event.data` that events of none of these types have; path: of the condition.

    A schema that forbids other fields makes it an error, else it is a warning.  Without a schema for each of the types
    nothing is known.
    """
    known = [schemas[type_] for type_ in types if type_ in schemas]
    if not known or len(known) < len(types):
        return
    for keys in dict.fromkeys(_paths(condition.tree)):
        looked = [_look(schema, keys) for schema in known]
        if all(found is not None for found in looked):
            lacks = [found for found in looked if found is not None]
            name, fields = lacks[0][0], {field for _, each, _ in lacks for field in each}
            closed = all(forbids for _, _, forbids in lacks)
            message = f"events of type {' or '.join(f'`{each}`' for each in types)} have no `data.{name}`"
            yield document.problem(
                path, message, did_you_mean(name.split(".")[-1], fields), severity="error" if closed else "warning"
            )


def _paths(node: Node) -> Iterator[tuple[str, ...]]:
    """The paths below `event.data` that an expression reads; `has` may ask for any."""
    if node.kind == "call" and node.value == "has":
        return
    keys = _keys(node)
    if keys and keys[0] == "data" and len(keys) > 1:
        yield keys[1:]
        return
    for child in node.children:
        yield from _paths(child)


def _keys(node: Node) -> tuple[str, ...] | None:
    """The names from `event` to a field, as far as they are written out; None where it does not begin there."""
    if node.kind == "name":
        return () if node.value == "event" else None
    if node.kind not in ("select", "index"):
        return None
    before, key = _keys(node.children[0]), node.value if node.kind == "select" else text_of(node.children[1])
    return None if before is None or key is None else (*before, key)


def _look(schema: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, list[str], bool] | None:
    """Where a path leaves a schema: the path so far, the fields that are there, whether others are forbidden.

    None where it does not, or where the schema says more than we read.
    """
    for place, key in enumerate(keys):
        fields = schema.get("properties")
        if not isinstance(fields, Mapping) or {"$ref", "anyOf", "oneOf", "allOf", "patternProperties"} & schema.keys():
            return None
        if key not in fields:
            return ".".join(keys[: place + 1]), list(fields), schema.get("additionalProperties") is False
        schema = fields[key] if isinstance(fields[key], Mapping) else {}
    return None
