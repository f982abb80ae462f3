"""Crowds of rules that share what they ask for, so that every table, grid and node of the index is in use and left."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.naive_matching import matches

from penstock.triggers import Matcher, Pattern

TEXTS = [
    "",
    "a",
    "ab",
    "abcd",
    "abce",
    "/abcd",
    "x/abcd",
    "x/abcd/y",
    "x.abc-d",
    "ABCD",
    "a/é",
    "éabc",
    "/éabc/z",
    "K",
    "k",
]
NUMBERS = [0, 1, 1.0, 7, 7.5, 8, 16, 17, -1, 5e-324, 1e308, 2**53 - 1, 2**53, 2**53 + 2, 1e23, True, False, None]
BOUNDS = [-1, 0, 5e-324, 1, 7, 8, 9, 17, 300, 2**53 - 1, 2**53, 2**53 + 2, 1e23, 1e308]


def texts(dice: random.Random) -> Any:
    text = dice.choice(TEXTS)
    piece = text[dice.randrange(len(text)) :] if text else "q"
    return dice.choice(
        [
            text,
            {"prefix": text[: dice.randrange(1, 6)]},
            {"suffix": piece},
            {"equals-ignore-case": text},
            {"prefix": {"equals-ignore-case": text[:2]}},
            {"suffix": {"equals-ignore-case": piece}},
            {"wildcard": f"*{piece}*"},
            {"wildcard": f"{text[:3]}*{piece[-1]}"},
            {"wildcard": f"*{piece[0]}*{piece[-1]}*"},
            {"anything-but": [text, "x"]},
            {"exists": dice.random() < 0.5},
        ]
    )


def numbers(dice: random.Random) -> Any:
    low, high = sorted(dice.sample(BOUNDS, 2))
    return dice.choice(
        [
            dice.choice(NUMBERS),
            {"numeric": [dice.choice([">", ">="]), low, dice.choice(["<", "<="]), high]},
            {"numeric": [dice.choice([">", ">=", "<", "<=", "="]), low]},
            {"anything-but": [low, 1]},
            {"exists": dice.random() < 0.5},
        ]
    )


def rule(dice: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if dice.random() < 0.6:
        found["type"] = dice.choice([["t"], ["t", "u"], [{"prefix": "t"}]])
    if dice.random() < 0.7:
        found["name"] = [texts(dice) for _ in range(dice.choice([1, 1, 1, 2]))]
    if dice.random() < 0.5:
        found["data"] = {"size": [numbers(dice) for _ in range(dice.choice([1, 1, 2]))]}
    if dice.random() < 0.2 or not found:
        found["$or"] = [{"other": [texts(dice)]}, {"data": {"size": [numbers(dice)], "name": [texts(dice)]}}]
    return found


def event(dice: random.Random) -> dict[str, Any]:
    def leaf() -> Any:
        some = dice.choice(TEXTS) if dice.random() < 0.7 else dice.choice(NUMBERS)
        return some if dice.random() < 0.9 else [some, dice.choice(TEXTS), {"name": dice.choice(TEXTS)}]

    found: dict[str, Any] = {"type": dice.choice(["t", "u", "tu", 1])}
    for key in ("name", "other"):
        if dice.random() < 0.8:
            found[key] = leaf()
    if dice.random() < 0.8:
        found["data"] = {"size": dice.choice([*NUMBERS, *BOUNDS, 10**23]), "name": leaf()}
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 160), st.integers(1, 12))
def test_a_crowd_is_found_as_it_comes_goes_and_comes_back(seed: int, size: int, different: int) -> None:
    dice = random.Random(seed)
    few = [rule(dice) for _ in range(different)]
    rules = [dice.choice(few) if dice.random() < 0.5 else rule(dice) for _ in range(size)]
    events = [event(dice) for _ in range(4)]
    matcher = Matcher()
    current: dict[int, dict[str, Any]] = {}

    def agrees() -> None:
        for each in events:
            expected = {key for key, asked in current.items() if matches(asked, each)}
            assert matcher.match(each) == expected
            assert matcher.match_json(json.dumps(each).encode()) == expected

    for key, each in enumerate(rules):
        matcher.add(key, Pattern(each))
        current[key] = each
    agrees()
    for key in dice.sample(range(size), size * 2 // 3):
        matcher.remove(key)
        del current[key]
    agrees()
    for key in dice.sample(range(size), size // 2):  # some of them are there, and get another pattern
        current[key] = dice.choice(rules)
        matcher.add(key, Pattern(current[key]))
    agrees()
    for key in [*current]:
        matcher.remove(key)
        del current[key]
    agrees()
    assert matcher._root.size == 0
    assert not matcher._root._tables


def test_what_was_removed_leaves_no_memory_behind() -> None:
    dice = random.Random(5)
    rules = [
        rule(dice) | {"name": [{"prefix": f"{number:05d}"}, {"wildcard": f"*/w{number}*"}]} for number in range(600)
    ]
    matcher = Matcher()
    for turn in range(3):
        for key, each in enumerate(rules):
            matcher.add((turn, key), Pattern(each))
        for key in range(len(rules)):
            matcher.remove((turn, key))
        root = matcher._root
        assert (root.size, root._tables, root.keys, root.rest, root.lookups, root.finders, root._places) == (
            (0, {}, {}, {}, (), (), {})
        )
        assert len(matcher._slots) <= 5
        assert len(root._regret) <= 20
