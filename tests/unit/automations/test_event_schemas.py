"""`if` against known schemas of events."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.rule_texts import rule

from penstock.automations import load_texts

ORDER: dict[str, Any] = {
    "properties": {"total": {"type": "number"}, "buyer": {"properties": {"name": {}}}, "any": {"anyOf": [{}]}},
    "additionalProperties": False,
}
OPEN: dict[str, Any] = {"properties": {"total": {}}}


def told(condition: str, event: str = "order.placed", **schemas: Any) -> list[tuple[str, str, str]]:
    text = rule(f"{{event: {event}}}", "[{emit: {type: x.y}}]", f'    if: "{condition}"\n')
    found = load_texts({"r.yaml": text}, schemas={name.replace("_", "."): schema for name, schema in schemas.items()})
    return [(problem.severity, problem.message, problem.hint) for problem in found.problems]


@pytest.mark.parametrize(
    ("condition", "lacks", "hint"),
    [
        ("event.data.totl > 5", "totl", "did you mean `total`?"),
        ("event.data['totl'] > 5", "totl", "did you mean `total`?"),
        (
            "event.data.total > 5 && event.data.items.exists(i, i > event.data.total)",
            "items",
            "known: any, buyer, total",
        ),
    ],
)
def test_a_field_that_a_closed_schema_lacks_is_refused(condition: str, lacks: str, hint: str) -> None:
    message = f"events of type `order.placed` have no `data.{lacks}`"
    assert told(condition, order_placed=ORDER) == [("error", message, hint)]


def test_one_that_an_open_schema_lacks_is_a_warning() -> None:
    message = "events of type `order.placed` have no `data.buyer.nam`"
    assert told("event.data.buyer.nam == 'a'", order_placed=ORDER) == [("warning", message, "did you mean `name`?")]
    assert told("event.data.items == 1", order_placed=OPEN)[0][0] == "warning"


@pytest.mark.parametrize(
    "condition",
    [
        "event.data.total > 5",
        "event.data.buyer.name == 'a'",
        "has(event.data.note) && event.data.total > 5",
        "event.data.any.thing == 1",
        "event.data[event.subject] == 1",
        "event.subject == 'x' && event.data != null",
    ],
)
def test_what_may_be_there_is_fine(condition: str) -> None:
    assert told(condition, order_placed=ORDER) == []


def test_nothing_is_known_without_a_schema_for_each_type() -> None:
    assert told("event.data.totl > 5", "'order.*'", order_placed=ORDER) == []
    assert told("event.data.totl > 5", "[order.placed, order.paid]", order_placed=ORDER) == []
    assert told("event.data.totl > 5") == []
    two = told("event.data.totl > 5", "[order.placed, order.paid]", order_placed=ORDER, order_paid=OPEN)
    assert two[0][:2] == ("warning", "events of type `order.placed` or `order.paid` have no `data.totl`")
