"""Forms that go with a decision."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from penstock.automations.forms import FormError, check_form, from_text


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Order(BaseModel):
    amount: int
    name: str = "ann"
    express: bool | None = None
    size: Size = Size.SMALL
    day: date | None = None
    at: datetime | None = None
    tags: list[str] = []


SCHEMA = Order.model_json_schema()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "amount: it is missing"),
        ({"amount": "much"}, "amount: 'much' is not of type 'integer'"),
        ({"amount": 1, "nmae": "x"}, "nmae: the form has no such field; did you mean 'name'?"),
        ({"amount": 1, "size": "huge"}, "size: 'huge' is not one of"),
        ({"amount": 1, "day": "soon"}, "day: 'soon' is not valid"),
        ({"amount": 1, "at": "today"}, "at: 'today' is not valid"),
        ({"amount": 1, "tags": [3]}, "tags.0: 3 is not of type 'string'"),
    ],
)
def test_what_does_not_fit_is_told_by_field(values: dict[str, Any], told: str) -> None:
    with pytest.raises(FormError) as refused:
        check_form(SCHEMA, values)
    assert told in str(refused.value)


def test_typed_text_is_read_as_the_field_takes_it() -> None:
    typed = {"amount": "3", "name": "7", "express": "true", "size": "large", "day": "2026-01-02", "tags": '["a"]'}
    values = from_text(SCHEMA, typed)
    assert values == typed | {"amount": 3, "express": True, "tags": ["a"]}
    check_form(SCHEMA, values)


@given(st.dictionaries(st.sampled_from(sorted(Order.model_fields)), st.text(max_size=20)))
def test_typed_values_that_pass_are_taken_by_the_form_itself(typed: dict[str, str]) -> None:
    values = from_text(SCHEMA, typed)
    try:
        check_form(SCHEMA, values)
    except FormError:
        return
    Order.model_validate(values)
