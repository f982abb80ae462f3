"""The index, a single pattern and the naive matcher never differ."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.naive_matching import matches
from tests.support.scale import scaled

from penstock.triggers import Matcher, Pattern

KEYS = st.sampled_from(["a", "b", "c", "a.b", "b.c"])
TEXTS = st.sampled_from(
    ["", "a", "ab", "abc", "xab", "AB", "aXbXc", "a*b", "é", "É", "10.0.0.1", "010.0.0.1", "::1", "0:0::1"]
)
NUMBERS = st.sampled_from([0, 1, 1.0, -1, 2, 2.5, 3, 100, -0.0, 9007199254740993, 1e300, 0.1])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS.filter(lambda text: text != "010.0.0.1"))
EVENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
    ),
    max_size=4,
)
WORDS = st.sampled_from(["a", "ab", "b", "abc", "Ab", "é", "xa"])
DOUBLES = st.sampled_from([0, 1, 2.5, -1, 3, 100])
WILDCARDS = st.sampled_from(["a*", "*b", "*", "a*c", "*b*", "a*b*c", "abc", r"a\*b", "*a*b", "ab*ab", ""])


def ranges() -> st.SearchStrategy[list[Any]]:
    one = st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), DOUBLES).map(list)
    two = st.tuples(st.sampled_from([">", ">="]), DOUBLES, st.sampled_from(["<", "<="]), DOUBLES)
    return one | two.filter(lambda terms: terms[1] < terms[3]).map(list)


def some(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return texts | st.lists(texts, min_size=1, max_size=3)


ALTERNATIVES = st.one_of(
    SCALARS.filter(lambda value: value != 9007199254740993) | st.just(9007199254740993),
    st.builds(lambda text: {"exactly": text}, TEXTS),
    st.builds(
        lambda name, text: {name: text},
        st.sampled_from(["prefix", "suffix", "equals-ignore-case"]),
        WORDS | st.just(""),
    ),
    st.builds(
        lambda name, text: {name: {"equals-ignore-case": text}},
        st.sampled_from(["prefix", "suffix"]),
        WORDS | st.just(""),
    ),
    st.builds(lambda text: {"wildcard": text}, WILDCARDS),
    st.builds(lambda terms: {"numeric": terms}, ranges()),
    st.builds(lambda flag: {"exists": flag}, st.booleans()),
    st.builds(lambda block: {"cidr": block}, st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/64", "10.0.0.0/31"])),
    st.builds(lambda value: {"anything-but": value}, some(TEXTS) | DOUBLES | st.lists(DOUBLES, min_size=1, max_size=3)),
    st.builds(
        lambda name, texts: {"anything-but": {name: texts}},
        st.sampled_from(["prefix", "suffix", "equals-ignore-case"]),
        some(WORDS),
    ),
    st.builds(lambda texts: {"anything-but": {"wildcard": texts}}, some(WILDCARDS.filter(bool))),
)
LISTS = st.lists(ALTERNATIVES, min_size=1, max_size=3)


def patterns() -> st.SearchStrategy[dict[str, Any]]:
    plain = st.lists(SCALARS, min_size=1, max_size=2)
    fields = LISTS | plain

    def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        objects = st.dictionaries(KEYS, inner, min_size=1, max_size=3)
        branches = st.lists(objects.filter(lambda found: isinstance(found, dict)), min_size=2, max_size=3)
        return objects | st.builds(lambda found, either: {**found, "$or": either}, objects, branches)

    nested = st.recursive(fields, wider, max_leaves=6)
    return wider(nested)


@settings(max_examples=scaled(1_000), deadline=None)
@given(st.lists(patterns(), min_size=1, max_size=24), st.lists(EVENTS, min_size=1, max_size=5))
def test_index_pattern_and_naive_matcher_agree(rules: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    matcher = Matcher()
    compiled = [Pattern(rule) for rule in rules]
    for key, pattern in enumerate(compiled):
        matcher.add(key, pattern)
    for event in events:
        expected = {key for key, rule in enumerate(rules) if matches(rule, event)}
        assert {key for key, pattern in enumerate(compiled) if pattern.matches(event)} == expected
        assert matcher.match(event) == expected
        assert matcher.match_json(json.dumps(event).encode()) == expected


@settings(max_examples=scaled(400), deadline=None)
@given(
    st.lists(patterns(), min_size=1, max_size=40),
    st.lists(st.tuples(st.booleans(), st.integers(0, 15), st.integers(0, 39)), max_size=80),
    st.lists(EVENTS, min_size=1, max_size=4),
)
def test_adding_replacing_and_removing_leaves_what_was_asked_for(
    rules: list[dict[str, Any]], changes: list[tuple[bool, int, int]], events: list[dict[str, Any]]
) -> None:
    matcher = Matcher()
    current: dict[int, dict[str, Any]] = {}
    for adding, key, which in changes:
        if adding:
            current[key] = rules[which % len(rules)]
            matcher.add(key, Pattern(current[key]))
        elif key in current:
            del current[key]
            matcher.remove(key)
    assert len(matcher) == len(current)
    for event in events:
        assert matcher.match(event) == {key for key, rule in current.items() if matches(rule, event)}
    for key in current:
        matcher.remove(key)
    assert matcher.match(events[0]) == set()
    assert matcher._root.size == 0
    assert not matcher._root._tables
