"""Rules are swapped while other threads match: every match sees each rule as before or as after, never neither."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import pytest

from penstock.triggers import Matcher, Pattern

EVENT: dict[str, Any] = {"type": "t1", "data": {"name": "abcdef", "size": 5, "flag": True}}
BODY = json.dumps(EVENT).encode()
SAME: list[dict[str, Any]] = [  # patterns of very different kinds, each of which the event matches
    {"type": ["t1"]},
    {"type": [{"prefix": "t"}]},
    {"data": {"name": [{"wildcard": "a*cd*"}]}},
    {"data": {"size": [{"numeric": [">", 1, "<", 9]}]}},
    {"data": {"size": [{"numeric": [">", 1]}]}, "type": ["t1", "t2"]},
    {"data": {"flag": [True], "name": [{"suffix": "ef"}]}},
    {"data": {"lacking": [{"exists": False}]}},
    {"$or": [{"type": ["t1"]}, {"data": {"name": ["x"]}}]},
]


@pytest.fixture(autouse=True)
def _switching_often() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_rule_that_is_always_there_is_always_found_and_a_withdrawn_one_is_not() -> None:
    matcher = Matcher()
    stable = {("stable", number) for number in range(len(SAME))}
    for number, pattern in enumerate(SAME):
        matcher.add(("stable", number), Pattern(pattern))
        matcher.add(("changing", number), Pattern(pattern))
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for found in (matcher.match(EVENT), matcher.match_json(BODY)):
                kinds = {key for key in found if isinstance(key, tuple) and key[0] in ("stable", "changing")}
                if len(kinds) != 2 * len(SAME) or not stable <= kinds or "never" in found:
                    wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(300):
        for number in range(len(SAME)):  # replaced by another pattern that matches too
            matcher.add(("changing", number), Pattern(SAME[(number + turn) % len(SAME)]))
        for number in range(12):  # a crowd comes and goes, with a path that nobody named before
            matcher.add(("crowd", number), Pattern({"type": ["t1"], f"new{turn}": [{"exists": number % 2 == 0}]}))
        matcher.add("never", Pattern({"type": ["t1"], "data": {"size": [1], "flag": [1]}}))
        for number in range(12):
            matcher.remove(("crowd", number))
        matcher.remove("never")
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert matcher.match(EVENT) == stable | {("changing", number) for number in range(len(SAME))}


def test_a_key_added_again_has_only_its_new_pattern() -> None:
    matcher = Matcher()
    matcher.add("rule", Pattern({"a": ["1"]}))
    matcher.add("rule", Pattern({"a": ["2"]}))
    assert len(matcher) == 1
    assert "rule" in matcher
    assert matcher.match({"a": "1"}) == set()
    assert matcher.match({"a": "2"}) == {"rule"}


def test_removing_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        Matcher().remove("nobody")


def test_equal_patterns_under_many_keys_are_all_found_and_each_can_go() -> None:
    matcher = Matcher()
    for key in range(100):
        matcher.add(key, Pattern({"a": ["1"], "b": [{"prefix": "x"}]}))
    matcher.remove(50)
    assert matcher.match({"a": "1", "b": "xy"}) == set(range(100)) - {50}
