"""A seeded crowd: hundreds of rules in one index, so that its tables, nodes and groups are all in use."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.support.naive_matching import matches

from penstock.triggers import Matcher, Pattern

TYPES = ["order.placed", "order.paid", "sensor.temperature"]
REGIONS = ["eu-1", "eu-2", "us-1"]
NAMES = ["truck/1", "truck/22", "ship/1/deck", "Ship/1", "a-b-c-d", "plant.eu.x", "10.0.0.7", "2001:db8::1", ""]


def alternative(dice: random.Random) -> Any:
    text = dice.choice(NAMES)
    low = dice.choice([-5, 0, 1, 2.5, 10, 50])
    return dice.choice(
        [
            text,
            dice.choice([0, 1, True, False, None, 2.5, 10]),
            {"prefix": text[: dice.randint(0, 6)]},
            {"suffix": text[-dice.randint(1, 6) :]},
            {"equals-ignore-case": text.upper()},
            {"prefix": {"equals-ignore-case": text[:4].upper()}},
            {"wildcard": f"{text[:2]}*{text[4:6]}*"[: dice.randint(1, 6)].replace("**", "*")},
            {"wildcard": f"*{text[1:7]}*" if text else "*"},
            {"numeric": [dice.choice([">", ">=", "<", "<=", "="]), low]},
            {"numeric": [">", low, "<=", low + dice.choice([0.5, 3, 100])]},
            {"exists": dice.random() < 0.5},
            {"anything-but": [text, "other"]},
            {"anything-but": {"prefix": text[:3] or "x"}},
            {"cidr": dice.choice(["10.0.0.0/24", "2001:db8::/32", "0.0.0.0/0"])},
        ]
    )


def rule(dice: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if dice.random() < 0.7:
        found["type"] = dice.sample(TYPES, dice.randint(1, 2))
    if dice.random() < 0.3:
        found["subject"] = [dice.choice(NAMES)]
    data: dict[str, Any] = {}
    if dice.random() < 0.3:
        data["region"] = dice.sample(REGIONS, dice.randint(1, 3))
    for name in dice.sample(["name", "size", "flag"], dice.randint(0, 2)):
        data[name] = [alternative(dice) for _ in range(dice.randint(1, 2))]
    if dice.random() < 0.3:
        data["items"] = {key: [alternative(dice)] for key in dice.sample(["sku", "count", "ok"], dice.randint(1, 2))}
    if data:
        found["data"] = data
    if not found or dice.random() < 0.15:
        found["$or"] = [{"subject": [alternative(dice)]}, {"data": {"name": [alternative(dice)]}}]
    return found


def scalar(dice: random.Random) -> Any:
    return dice.choice([*NAMES, 0, 1, True, False, None, 2.5, 10, 11.0, 52, -5])


def event(dice: random.Random) -> dict[str, Any]:
    data: dict[str, Any] = {"region": dice.choice(REGIONS)}
    for name in ("name", "size", "flag"):
        if dice.random() < 0.8:
            data[name] = scalar(dice) if dice.random() < 0.85 else [scalar(dice) for _ in range(dice.randint(0, 3))]
    if dice.random() < 0.5:
        data["items"] = [
            {key: scalar(dice) for key in dice.sample(["sku", "count", "ok"], dice.randint(0, 3))}
            for _ in range(dice.randint(0, 3))
        ]
    return {"type": dice.choice(TYPES), "subject": scalar(dice), "data": data}


@pytest.mark.parametrize("seed", range(3))
def test_thirty_thousand_pairs_agree_with_the_naive_matcher(seed: int) -> None:
    dice = random.Random(seed)
    rules = [rule(dice) for _ in range(500)]
    matcher = Matcher()
    for key, each in enumerate(rules):
        matcher.add(key, Pattern(each))
    for key in range(0, 500, 5):  # some are withdrawn, so that removal is part of the comparison
        matcher.remove(key)
    pairs = 0
    for _ in range(75):
        found = event(dice)
        expected = {key for key, each in enumerate(rules) if key % 5 and matches(each, found)}
        assert matcher.match(found) == expected
        assert matcher.match_json(json.dumps(found).encode()) == expected
        pairs += len(expected)
    assert pairs > 500  # the comparison is about matches too, not only about their absence
