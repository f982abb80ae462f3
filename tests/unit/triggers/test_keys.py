"""Keys: what `per` reads."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.triggers.keys import NO_KEY, canonical, key_of, partition_of

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def test_a_missing_path_and_null_give_the_key_null() -> None:
    assert key_of({"subject": None}, ("subject",)) == key_of({}, ("subject",)) == key_of({}, ()) == NO_KEY


def test_values_keep_their_json_kind() -> None:
    values: list[Any] = [7, "7", True, "", None, [7], {"a": 7}, 7.5]
    keys = [key_of({"data": {"no": value}}, ("data.no",)) for value in values]
    assert len(set(keys)) == len(values)


def test_seven_and_seven_point_zero_are_one_json_number() -> None:
    assert key_of({"a": 7}, ("a",)) == key_of({"a": 7.0}, ("a",))


def test_several_paths_give_a_list() -> None:
    assert key_of({"subject": "s", "data": {"x": 1}}, ("subject", "data.x", "data.y")) == '["s",1,null]'


def test_a_path_through_a_scalar_is_missing() -> None:
    assert key_of({"data": "text"}, ("data.x",)) == NO_KEY


@given(json_values, json_values)
def test_two_keys_are_equal_exactly_when_the_values_are(left: Any, right: Any) -> None:
    same = canonical(left) == canonical(right)
    assert same == (_strict(left) == _strict(right))


@given(st.text(), st.text(), st.integers(1, 64))
def test_a_window_always_lives_in_one_of_the_partitions(automation: str, key: str, partitions: int) -> None:
    home = partition_of("default", automation, key, partitions)
    assert 0 <= home < partitions
    assert home == partition_of("default", automation, key, partitions)


def _strict(value: Any) -> Any:
    """Python's own equality, with booleans kept apart from numbers."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    return [_strict(inner) for inner in value] if isinstance(value, list) else value
