"""Results as JSON, and back as what the function returned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from penstock.flows import TaskResultError
from penstock.flows.results import MAX_RESULT, ResultType, digest_arguments, encode_result

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), inner, max_size=4)
    ),
    max_leaves=10,
)


class Reading(BaseModel):
    celsius: float
    at: datetime


@dataclass
class Route:
    stops: list[str]
    takes: timedelta


class Packed(msgspec.Struct):
    weight: int


def a_reading() -> Reading: ...  # type: ignore[empty-body]  # only its annotation is read
def a_route() -> Route: ...  # type: ignore[empty-body]  # only its annotation is read
def some_readings() -> list[Reading]: ...  # type: ignore[empty-body]  # only its annotation is read
def a_struct() -> Packed: ...  # type: ignore[empty-body]  # only its annotation is read
def a_pair() -> tuple[int, str]: ...  # type: ignore[empty-body]  # only its annotation is read
def a_time() -> datetime: ...  # type: ignore[empty-body]  # only its annotation is read
def an_id() -> UUID: ...  # type: ignore[empty-body]  # only its annotation is read
def a_price() -> Decimal: ...  # type: ignore[empty-body]  # only its annotation is read
def a_number() -> int: ...  # type: ignore[empty-body]  # only its annotation is read


MOMENT = datetime(2026, 3, 1, 10, 0, 0, 250, tzinfo=UTC)
WARM = Reading(celsius=9.5, at=MOMENT)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (a_reading, WARM),
        (some_readings, [WARM, WARM]),
        (a_route, Route(["Graz", "Linz"], timedelta(hours=2))),
        (a_struct, Packed(3)),
        (a_pair, (1, "a")),
        (a_time, MOMENT),
        (an_id, UUID(int=7)),
        (a_price, Decimal("9.90")),
    ],
)
def test_an_annotated_result_comes_back_as_it_was(fn: Callable[[], Any], value: object) -> None:
    found = ResultType(fn).decode(encode_result(value, "t"))
    assert found == value
    assert type(found) is type(value)


@given(JSON)
def test_json_comes_back_as_it_was_without_an_annotation(value: object) -> None:
    assert ResultType(lambda: None).decode(encode_result(value, "t")) == value


def test_a_result_that_belies_its_annotation_comes_back_as_json() -> None:
    assert ResultType(a_number).decode(encode_result({"a": 1}, "t")) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (threading.Lock(), "lock"),
        (float("nan"), "NaN"),
        ({"deep": [Reading(celsius=float("inf"), at=MOMENT)]}, "NaN or infinity"),
        ({"text": "a\0b"}, "NUL"),
        ("\ud800", "surrogates"),
        ({(1, 2): 3}, "tuple has no JSON form"),
        ("x" * MAX_RESULT, "bytes"),
        ((each for each in [1]), "generator"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(value: object, reason: str) -> None:
    with pytest.raises(TaskResultError, match=reason) as refusal:
        encode_result(value, "weigh")
    assert "'weigh'" in str(refusal.value)


def test_the_six_characters_of_an_escape_are_no_nul() -> None:
    assert ResultType(lambda: None).decode(encode_result("\\u0000 null", "t")) == "\\u0000 null"


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_a_mapping(given_: dict[str, Any], random: Any) -> None:
    shuffled = list(given_.items())
    random.shuffle(shuffled)
    assert digest_arguments({"x": given_}) == digest_arguments({"x": dict(shuffled)})


@given(st.lists(JSON, min_size=2, max_size=2, unique_by=lambda each: msgspec.json.encode(each, order="deterministic")))
def test_different_arguments_have_different_digests(values: list[object]) -> None:
    assert digest_arguments({"x": values[0]}) != digest_arguments({"x": values[1]})


def test_arguments_without_a_json_form_count_by_their_type() -> None:
    locks = digest_arguments({"x": threading.Lock()}), digest_arguments({"x": threading.Lock()})
    assert locks[0] == locks[1] != digest_arguments({"x": threading.Event()})
    assert digest_arguments({"x": {(1, 2): 3}}) == digest_arguments({"x": {(1, 2): 3}})
