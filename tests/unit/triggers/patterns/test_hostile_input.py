"""Nothing that an event or a pattern can hold makes the matcher raise, lie or take long."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scale import scaled

from penstock.triggers import Matcher, Pattern, PatternError


def matcher_of(*patterns: dict[str, Any]) -> Matcher:
    matcher = Matcher()
    for key, pattern in enumerate(patterns):
        matcher.add(key, Pattern(pattern))
    return matcher


RULES = matcher_of(
    {"a": ["x", 1, True, None]},
    {"a": {"b": [{"wildcard": "*a*b*"}]}},
    {"a": [{"numeric": [">", 0]}], "b": [{"exists": False}]},
    {"a": [{"anything-but": [1, 2]}]},
    {"a": {"b": [{"exists": True}], "c": [{"prefix": "x"}]}},
    {"a.b.c": [{"cidr": "10.0.0.0/8"}]},
    {"": [1], "a": {"": ["é"]}},
)


@settings(max_examples=scaled(800), deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_raise(body: bytes) -> None:
    assert isinstance(RULES.match_json(body), set)


KEYS = st.sampled_from(["a", "b", "c", "a.b", "", "a.b.c", "\ud800"]) | st.integers() | st.none()
ODD = st.one_of(
    st.floats(), st.text(), st.binary(), st.integers(), st.decimals(), st.datetimes(), st.just(object()), st.booleans()
)
VALUES = st.recursive(
    ODD,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(st.integers()),
    max_leaves=20,
)


@settings(max_examples=scaled(800), deadline=None)
@given(VALUES)
def test_no_value_of_python_raises(event: Any) -> None:
    assert isinstance(RULES.match(event), set)
    assert isinstance(RULES.match({"a": event}), set)


@settings(max_examples=scaled(600), deadline=None)
@given(VALUES, st.sampled_from(["prefix", "numeric", "cidr", "anything-but", "exists", "wildcard", "exactly", "x"]))
def test_no_pattern_raises_anything_but_a_pattern_error(value: Any, operator: str) -> None:
    for pattern in (value, {"a": value}, {"a": [value]}, {"a": [{operator: value}]}, {"$or": value}):
        try:
            Pattern(pattern)
        except PatternError:
            continue


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python it takes: the same on every machine, however busy."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


SIZES = (
    4_000,
    16_000,
)  # four times the input may take little more than four times the steps; quadratic would take sixteen


def long_array(size: int) -> dict[str, Any]:
    return {"a": [f"x{number}" for number in range(size)]}


def many_elements(size: int) -> dict[str, Any]:
    return {"a": [{"b": f"x{number}", "c": f"x{number + 1}"} for number in range(size)]}


def deep_arrays(size: int) -> dict[str, Any]:
    value: Any = [1]
    for _ in range(size):
        value = [value, 1]
    return {"a": value}


def long_text(size: int) -> dict[str, Any]:
    return {"a": {"b": "ab" * 30 * size}}


GROWING: dict[str, tuple[dict[str, Any], Callable[[int], dict[str, Any]]]] = {
    "an exact list on a long array": ({"a": ["x1", "y"], "b": [{"exists": False}]}, long_array),
    "two fields of many elements": ({"a": {"b": [{"prefix": "x"}], "c": ["x0"]}}, many_elements),
    "absence in many elements": ({"a": {"b": [{"prefix": "x"}], "c": [{"exists": False}]}}, many_elements),
    "arrays in arrays": ({"a": [2]}, deep_arrays),
    "a wildcard on a long text": ({"a": {"b": [{"wildcard": "*a*b*a*b*c"}]}}, long_text),
    "letter case on a long text": ({"a": {"b": [{"suffix": {"equals-ignore-case": "éé"}}]}}, long_text),
    "a prefix on a long text": ({"a": {"b": [{"wildcard": "*bb*"}]}}, long_text),
}


@pytest.mark.parametrize("name", GROWING)
def test_the_work_grows_no_faster_than_the_event(name: str) -> None:
    pattern, make = GROWING[name]
    matcher = matcher_of(pattern)
    small, large = (json.dumps(make(size)).encode() if make is not deep_arrays else make(size) for size in SIZES)
    match: Callable[[Any], object] = matcher.match_json if isinstance(small, bytes) else matcher.match
    match(small)  # whatever is built once
    first, second = steps(lambda: match(small)), steps(lambda: match(large))
    assert second < max(first, 1_000) * 6


def test_ten_thousand_elements_against_ten_thousand_rules_on_two_of_their_fields() -> None:
    matcher = Matcher()
    for number in range(10_000):
        matcher.add(number, Pattern({"a": {"b": [f"x{number}"], "c": [f"x{number + 1}"]}}))
    event = {"a": [{"b": f"x{number}", "c": f"x{number}"} for number in range(10_000)]}
    assert steps(lambda: matcher.match(event)) < 5_000_000
    assert matcher.match(event) == set()
    event["a"][77]["c"] = "x78"
    assert matcher.match(event) == {77}


def test_a_hundred_levels_and_a_megabyte_of_text_are_matched() -> None:
    path = ".".join("k" * 100)
    event: Any = "deep"
    for _ in range(100):
        event = {"k": event}
    matcher = matcher_of({path: ["deep"]}, {"text": [{"suffix": "end"}]})
    assert matcher.match_json(json.dumps(event).encode()) == {0}
    assert matcher.match_json(json.dumps({"text": "x" * 1_000_000 + "end"}).encode()) == {1}


def test_deeper_events_than_any_decoder_reads_match_nothing_and_raise_nothing() -> None:
    matcher = matcher_of({"a": [1]})
    assert matcher.match_json(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}") == set()
    assert matcher.match_json(b'{"a":' * 100_000 + b"1" + b"}" * 100_000) == set()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1} x',
        b'{"a":01}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
    ],
)
def test_what_is_no_json_object_matches_nothing(body: bytes) -> None:
    assert matcher_of({"a": [{"exists": True}]}, {"b": [{"exists": False}]}).match_json(body) == set()


def test_lone_surrogates_are_text_like_any_other() -> None:
    matcher = matcher_of({"a": [{"prefix": "x"}]}, {"a": ["x\ud800"]}, {"b": ["y"]})
    assert matcher.match_json(b'{"a":"x\\ud800","b":"y"}') == {0, 1, 2}
    assert matcher.match({"a": "x\ud800", "b": "y"}) == {0, 1, 2}


def test_integers_beyond_doubles_are_compared_digit_by_digit() -> None:
    matcher = matcher_of({"a": [9007199254740993]}, {"a": [{"numeric": [">", 5]}]}, {"a": [9007199254740992]})
    assert matcher.match_json(b'{"a":9007199254740993}') == {0}
    assert matcher.match_json(b'{"a":9007199254740992}') == {1, 2}
    assert matcher.match_json(b'{"a":9007199254740992.0}') == {1, 2}
    assert matcher.match_json(b'{"a":%s}' % (b"9" * 400)) == set()


def test_numbers_beyond_the_largest_double_are_in_no_range() -> None:
    matcher = matcher_of({"a": [{"numeric": [">", 5]}]}, {"a": [{"exists": True}]})
    assert matcher.match_json(b'{"a":1e400}') == {1}
    assert matcher.match({"a": float("nan")}) == {1}


def test_ranges_of_any_width_and_bounds_are_found() -> None:
    largest = sys.float_info.max
    forms: list[list[Any]] = [
        [">=", -(10**308), "<", 10**308],
        [">", -largest, "<=", largest],
        [">", 0, "<", 5e-324],
        [">=", 0, "<", 5e-324],
        [">", 10**22, "<=", 2 * 10**22],
        ["<", -largest],
        [">=", largest],
    ]
    rules = [{"a": [{"numeric": form}]} for form in forms]
    matcher = matcher_of(*rules)
    for value in (
        0,
        0.0,
        -0.0,
        5e-324,
        1e308,
        -1e308,
        largest,
        -largest,
        10**22,
        10**22 + 2**21,
        10**308,
        1e23,
        10**23,
    ):
        expected = {key for key, rule in enumerate(rules) if Pattern(rule).matches({"a": value})}
        assert matcher.match({"a": value}) == expected
        assert expected <= set(range(len(rules)))
    assert matcher.match({"a": 0}) == {0, 1, 3}
    assert matcher.match({"a": largest}) == {1, 6}


def test_both_values_of_a_repeated_key_count_unless_keys_are_known_to_be_unique() -> None:
    pattern = Pattern({"data": {"kind": ["x"]}, "type": ["t"]})
    for body in (
        b'{"type":"t","data":{"kind":"x","kind":"y"}}',
        b'{"type":"t","type":"u","data":{"kind":"x"}}',
        b'{"type":"t","data":{"kind":"x"},"data":{}}',
        b'{"type":"t","data":{"kin\\u0064":"x","kind":"y"}}',
        b'{"type":"t", "data" : {"kind":"x" , "kind" : {}}}',
    ):
        careful, trusting = Matcher(), Matcher(unique_keys=True)
        careful.add("rule", pattern)
        trusting.add("rule", pattern)
        assert careful.match_json(body) == {"rule"}
        assert trusting.match_json(body) == set()


def test_what_multiplies_out_is_refused_with_the_place_and_the_reason() -> None:
    either: dict[str, Any] = {"a": ["1"]}
    for number in range(12):
        either = {f"f{number}": {"$or": [{"x": ["1"]}, {"y": ["1"]}]}} | either
    for pattern, path in (
        (either, "f2"),
        ({"a": [{"wildcard": "*a" * 100}]}, "a"),
        ({"a": [{"prefix": str(number)} for number in range(300)]}, "a"),
        ({"a": {"b": list(range(10_001))}}, "a.b"),
    ):
        with pytest.raises(PatternError, match="too complex") as caught:
            Pattern(pattern)
        assert caught.value.path == path


def test_a_pattern_nested_deeper_than_a_hundred_objects_is_refused() -> None:
    pattern: Any = ["x"]
    for _ in range(5_000):
        pattern = {"k": pattern}
    with pytest.raises(PatternError, match="nested deeper"):
        Pattern(pattern)


def test_many_fields_in_each_of_many_equal_rules_do_not_exhaust_the_stack() -> None:
    pattern = {f"f{number}": [{"prefix": "x"}] for number in range(400)}
    matcher = matcher_of(*[pattern] * 20)
    assert matcher.match({f"f{number}": "xy" for number in range(400)}) == set(range(20))
    for key in range(20):
        matcher.remove(key)
    assert len(matcher) == 0


MULTIPLYING: dict[str, tuple[Any, Any]] = {  # alternatives of each of many fields, and a value that satisfies them
    "many prefixes of one text": ([{"prefix": "x" * size} for size in range(1, 60)], "x" * 60),
    "a range that lies in two cells": ([{"numeric": [">=", 7, "<", 9]}], 8),
    "a word that comes again and again": ([{"wildcard": "*/abcd*"}], "/abcd1/abcd2/abcd3/abcd4/abcd5/abcd6/abcd7"),
    "long lists of values": ([f"v{number}" for number in range(400)], "v7"),
    "wildcards with many pieces": ([{"wildcard": "*abcdefghijklmnop*"}], "abcdefghijklmnop" * 3),
}


@pytest.mark.parametrize("name", MULTIPLYING)
def test_alternatives_of_several_fields_do_not_multiply_out_in_the_index(name: str) -> None:
    alternatives, value = MULTIPLYING[name]
    matcher = Matcher()
    patterns = [Pattern({f"f{number}": alternatives for number in range(8)}) for _ in range(60)]

    def load() -> None:
        for key, pattern in enumerate(patterns):
            matcher.add(key, pattern)

    assert steps(load) < 3_000_000
    event = {f"f{number}": value for number in range(8)}
    assert steps(lambda: matcher.match(event)) < 1_000_000
    assert matcher.match(event) == set(range(60))
    for key in range(60):
        matcher.remove(key)
    assert matcher.match(event) == set()


def test_a_word_under_many_delimiters_of_a_long_text_is_looked_up_once() -> None:
    matcher = matcher_of(
        *[{"a": [{"wildcard": f"*/abcd*{number}*"}], "b": [{"wildcard": "*/ab*"}]} for number in range(90)]
    )
    for event in (
        {"a": "/abcdx" * 20_000, "b": "/abc"},
        {"a": "/".join(f"abcd{n}" for n in range(20_000)), "b": "/abc"},
    ):
        assert steps(lambda event=event: matcher.match(event)) < 500_000  # type: ignore[misc] # bound at once
