"""`explain` names exactly the predicates that broke."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.triggers import Broken, Matcher, Pattern

GOOD: dict[str, Any] = {"type": "sensor.temperature", "subject": "truck/7", "data": {"celsius": 9, "state": "warm"}}
FIELDS: dict[str, tuple[str, Any, Any]] = {  # path: operator, alternative that holds, value that breaks it
    "type": ("exact", "sensor.temperature", "sensor.humidity"),
    "subject": ("prefix", {"prefix": "truck/"}, "ship/7"),
    "data.celsius": ("numeric", {"numeric": [">", 8]}, 7.5),
    "data.state": ("anything-but", {"anything-but": ["off", "ok"]}, "ok"),
    "data.door": ("exists", {"exists": False}, "open"),
}


def matcher_of(pattern: dict[str, Any]) -> Matcher:
    matcher = Matcher()
    matcher.add("rule", Pattern(pattern))
    return matcher


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"data": {}}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        (found["data"] if rest else found)[rest or head] = value
    return found


@given(st.sets(st.sampled_from(sorted(FIELDS))))
def test_exactly_what_was_broken_is_named(broken: set[str]) -> None:
    matcher = matcher_of(nested({path: [alternative] for path, (_, alternative, _) in FIELDS.items()}))
    event = json.loads(json.dumps(GOOD))
    for path in broken:
        head, _, rest = path.partition(".")
        (event["data"] if rest else event)[rest or head] = FIELDS[path][2]
    explanation = matcher.explain(event, "rule")
    assert explanation.matches is (not broken) is (matcher.match(event) == {"rule"})
    assert list(explanation.broken) == [
        Broken(path, FIELDS[path][0], FIELDS[path][1], (FIELDS[path][2],)) for path in sorted(broken)
    ]


def test_every_alternative_of_a_broken_field_is_named_and_a_missing_leaf_is_found_as_nothing() -> None:
    explanation = matcher_of({"a": ["x", {"suffix": "y"}], "b": [1]}).explain({"b": 1}, "rule")
    assert explanation.broken == (Broken("a", "exact", "x", ()), Broken("a", "suffix", {"suffix": "y"}, ()))
    assert str(explanation) == "a: expected exact 'x', found nothing; a: expected suffix {'suffix': 'y'}, found nothing"


def test_fields_that_hold_only_in_different_elements_are_told_together() -> None:
    event = {"items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 9}]}
    explanation = matcher_of({"items": {"sku": ["a"], "count": [9]}}).explain(event, "rule")
    assert not explanation.matches
    assert [(each.path, each.operator) for each in explanation.broken] == [("items.count, items.sku", "same element")]


def test_of_several_branches_the_nearest_one_is_told_and_all_are_kept() -> None:
    matcher = matcher_of({"a": ["1"], "$or": [{"b": ["1"], "c": ["1"]}, {"d": ["1"]}]})
    explanation = matcher.explain({"a": "1"}, "rule")
    assert [each.path for each in explanation.broken] == ["d"]
    assert [[each.path for each in branch] for branch in explanation.branches] == [["b", "c"], ["d"]]
    assert matcher.explain({"a": "1", "d": "1"}, "rule").matches


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        Matcher().explain({}, "rule")


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.text(max_size=3) | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner),
    )
)
def test_it_agrees_with_the_match_on_any_event(event: Any) -> None:
    matcher = matcher_of({"a": {"b": [{"exists": True}]}, "b": [{"exists": False}, 1]})
    assert matcher.explain(event, "rule").matches is (matcher.match(event) == {"rule"})
