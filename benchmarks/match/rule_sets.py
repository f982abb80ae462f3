"""The rules and events of the match benchmark, made by a seeded generator; every set is a plain function of its size.

Each rule of a single-operator set tells itself apart by that operator alone: none has an exact field to hide behind,
except those of `exact` (three exact fields) and `anything-but` (which needs one to match few events).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Rule = dict[str, Any]
EVENTS = 5_000
KINDS = 5_000  # types of events: at 100,000 rules about twenty rules share one
WORDS = "amber basalt cobalt delta ember fjord garnet harbor indigo jasper kelp lagoon marble nectar onyx pearl".split()  # noqa: SIM905 - a list of words


def events(dice: random.Random) -> list[dict[str, Any]]:
    """CloudEvents of about 600 bytes as compact JSON."""
    return [event(dice, number) for number in range(EVENTS)]


def event(dice: random.Random, number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"018f2c4e-7a1b-7c3d-9e5f-{number:012x}",
        "source": f"/plant/{dice.randrange(50)}/gateway/{dice.randrange(20)}",
        "type": f"sensor.kind{dice.randrange(KINDS)}.measured",
        "subject": f"truck/{dice.randrange(1_000)}",
        "time": "2026-03-01T10:00:00.123456Z",
        "partitionkey": f"truck/{number % 64}",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": {
            "celsius": round(dice.uniform(-40, 120), 3),
            "reading": dice.randrange(1_000_000),
            "region": f"region-{dice.randrange(20)}",
            "path": f"{name(dice, 200_000)}/{dice.choice(WORDS)}/{name(dice, 200_000)}",
            "state": dice.choice(["ok", "warm", "hot", "off"]),
            "tags": [f"tag-{dice.randrange(200_000)}" for _ in range(4)],
            "battery": dice.random(),
            "note": "Cold chain check, container sealed, door closed, no vibration seen",
        },
    }


def name(dice: random.Random, many: int) -> str:
    """One of many names of eight to ten characters, well spread."""
    number = dice.randrange(many)
    return f"{WORDS[number % 16][:4]}{number * 2654435761 % 2**32:08x}"[: 8 + number % 3]


def exact(dice: random.Random) -> Rule:
    return {
        "type": [f"sensor.kind{dice.randrange(KINDS)}.measured"],
        "subject": [f"truck/{dice.randrange(1_000)}"],
        "data": {"region": [f"region-{dice.randrange(20)}"]},
    }


def prefix(dice: random.Random) -> Rule:
    return {"data": {"path": [{"prefix": name(dice, 200_000)}]}}


def suffix(dice: random.Random) -> Rule:
    return {"data": {"path": [{"suffix": name(dice, 200_000)}]}}


def wildcard(dice: random.Random) -> Rule:
    """Half of them begin with a star."""
    text = (
        f"{name(dice, 200_000)[:7]}*{dice.choice(WORDS)}/*" if dice.random() < 0.5 else f"*/{name(dice, 200_000)[:8]}*"
    )
    return {"data": {"path": [{"wildcard": text}]}}


def anything_but(dice: random.Random) -> Rule:
    return {
        "type": [f"sensor.kind{dice.randrange(KINDS)}.measured"],
        "subject": [f"truck/{dice.randrange(1_000)}"],
        "data": {"state": [{"anything-but": dice.sample(["ok", "warm", "hot", "off"], 2)}]},
    }


def numeric(dice: random.Random) -> Rule:
    bottom = dice.randrange(1_000_000)
    return {"data": {"reading": [{"numeric": [">=", bottom, "<", bottom + dice.randint(1, 10)]}]}}


def array(dice: random.Random) -> Rule:
    return {"data": {"tags": [f"tag-{dice.randrange(200_000)}"]}}


def mixed(dice: random.Random) -> Rule:
    """What people write: a type, and one or two conditions of any kind."""
    found: Rule = {"type": [f"sensor.kind{dice.randrange(KINDS)}.measured"], "data": {}}
    if dice.random() < 0.1:
        found["type"] = [{"wildcard": f"sensor.kind{dice.randrange(KINDS)}.*"}]
    for condition in dice.sample(_CONDITIONS, dice.randint(1, 2)):
        condition(dice, found)
    if not found["data"]:
        del found["data"]
    return found


def broad(dice: random.Random) -> Rule:
    """As mixed, but one rule in 200 has no exact field."""
    found = mixed(dice)
    if dice.random() < 0.005:
        found = {"source": [{"prefix": f"/plant/{dice.randrange(50)}/"}], "data": found.get("data", {})}
        found["data"]["path"] = [{"suffix": name(dice, 200_000)}]
    return found


_CONDITIONS: list[Callable[[random.Random, Rule], None]] = [
    lambda dice, rule: rule.update(subject=[f"truck/{dice.randrange(1_000)}"]),
    lambda dice, rule: rule.update(subject=[{"prefix": f"truck/{dice.randrange(100)}"}]),
    lambda dice, rule: rule["data"].update(path=[{"suffix": name(dice, 200_000)[-4:]}]),
    lambda dice, rule: rule["data"].update(path=[{"wildcard": f"*{name(dice, 200_000)[:5]}*{dice.choice(WORDS)}*"}]),
    lambda dice, rule: rule["data"].update(celsius=[{"numeric": [">", dice.randint(100, 120)]}]),
    lambda dice, rule: rule["data"].update(
        celsius=[{"numeric": [">=", (low := dice.randint(-40, 110)), "<", low + 5]}]
    ),
    lambda dice, rule: rule["data"].update(state=[{"anything-but": ["ok", dice.choice(["warm", "hot", "off"])]}]),
    lambda dice, rule: rule["data"].update(region=[f"region-{dice.randrange(20)}", f"region-{dice.randrange(20)}"]),
    lambda dice, rule: rule.update(
        source=[{"equals-ignore-case": f"/PLANT/{dice.randrange(50)}/gateway/{dice.randrange(20)}"}]
    ),
    lambda dice, rule: rule["data"].update(alarm=[{"exists": False}], state=["hot"]),
]

SETS: dict[str, Callable[[random.Random], Rule]] = {
    "exact": exact,
    "prefix": prefix,
    "suffix": suffix,
    "wildcard": wildcard,
    "anything-but": anything_but,
    "numeric": numeric,
    "array": array,
    "mixed": mixed,
    "broad": broad,
}


def rules(kind: str, count: int) -> list[Rule]:
    """So many rules of a set, the same ones every time."""
    dice = random.Random(f"{kind} {count}")
    return [SETS[kind](dice) for _ in range(count)]
