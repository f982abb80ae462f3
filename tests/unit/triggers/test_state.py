"""What is kept of a key: its stored form, its size, and its end."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.support.core_rules import leaf, rule

from penstock.events.instants import SECOND
from penstock.triggers import forms as f
from penstock.triggers import machine
from penstock.triggers.evidence import Evidence
from penstock.triggers.machine import Match
from penstock.triggers.state import EMPTY, KeyState, StateFormatError, decode, encode

MOST = 64 * 1024
LONG = 3_600 * SECOND


def event(number: int, time: int, *, value: float = 1, size: int = 700) -> Evidence:
    """One of a realistic size: a UUID, and some data."""
    body = {"id": f"0197-{number:032d}", "source": "/plant/7/line/2", "data": {"v": value, "text": "x" * size}}
    return Evidence(time, "/plant/7/line/2", f"0197-{number:032d}", json.dumps(body).encode())


def largest(checked: f.Rule, count: int, *, size: int = 700, leaves: tuple[int, ...] = (0,)) -> int:
    """The largest stored form over a flood of events of one key."""
    state, found = EMPTY, 0
    for number in range(count):
        at = number * SECOND
        given = Match((leaves[number % len(leaves)],), event(number, at, value=1.05 ** (number % 900), size=size), at)
        state = machine.feed(checked, '"k"', state, given, at - 1).state
        found = max(found, len(encode(state)))
    return found


THOUSAND = f.Count(leaf("a"), 1_000, LONG)
ONE = f.Count(leaf("a"))
FLOODS: dict[str, tuple[f.Trigger, tuple[int, ...]]] = {
    "count": (THOUSAND, (0,)),
    "sequence": (f.Sequence((ONE, ONE, ONE), LONG), (0, 1)),
    "sequence without a limit": (f.Sequence((ONE, f.Count(leaf("b"), 900, LONG))), (0, 1)),
    "all": (f.AtLeast(2, (ONE, ONE), LONG), (0,)),
    "nested": (f.AtLeast(2, (f.Sequence((THOUSAND, ONE), LONG), f.Sequence((ONE, ONE), LONG)), LONG), (0, 2)),
    "waits": (f.Absent(leaf("b"), LONG, leaf("a")), (1,)),
    "answers": (f.Absent(leaf("b"), SECOND // 10, leaf("a")), (0,)),
    "metric": (f.Metric(leaf("a"), "data.v", LONG, "p95", ">", 1e30), (0,)),
    "average": (f.Metric(leaf("a"), "data.v", LONG, "avg", ">", 1e30), (0,)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_does_not_grow_a_key_past_its_bound(name: str) -> None:
    trigger, leaves = FLOODS[name]
    assert largest(rule(trigger, lateness=LONG), 2_500 if name == "metric" else 1_200, leaves=leaves) <= MOST


def test_one_event_too_large_to_keep_is_kept_without_its_body() -> None:
    for trigger in (f.Count(leaf("a"), 2, LONG), f.Absent(leaf("a"), LONG), f.Absent(leaf("b"), LONG, leaf("a"))):
        assert largest(rule(trigger), 1, size=900_000) < 1_000


def test_the_newest_event_keeps_its_body_longest() -> None:
    checked = rule(f.Count(leaf("a"), 3, LONG))
    state = machine.feed(checked, "null", EMPTY, Match((0,), event(1, 0, size=40_000), 0), -1).state
    state = machine.feed(checked, "null", state, Match((0,), event(2, 1, size=40_000), 1), 0).state
    [decision] = machine.feed(checked, "null", state, Match((0,), event(3, 2), 2), 1).decisions
    assert [bool(each.body) for each in decision.evidence] == [False, True, True]


def test_state_of_another_format_is_refused_with_both_versions() -> None:
    body = msgspec.msgpack.encode(KeyState(v=7, clock=5, number=1))
    with pytest.raises(StateFormatError, match=r"format 7 .* knows 1"):
        decode(body)
    with pytest.raises(StateFormatError, match="no state of a rule"):
        decode(b"\xc1")


def test_an_empty_state_is_a_few_bytes() -> None:
    assert decode(encode(EMPTY)) == EMPTY
    assert len(encode(EMPTY)) < 16


def test_expires_says_from_when_the_row_can_be_deleted_unread() -> None:
    checked = rule(f.Count(leaf("a"), 2, 10 * SECOND), lateness=5 * SECOND)
    step = machine.feed(checked, "null", EMPTY, Match((0,), event(1, 0), 0), -1)
    assert (step.wake, step.expires) == (None, 15 * SECOND)
    assert machine.tick(checked, "null", step.state, 15 * SECOND - 1).state == step.state
    assert machine.tick(checked, "null", step.state, 15 * SECOND).state is EMPTY


def test_wake_is_never_in_the_past() -> None:
    """A question delivered after its deadline is told when the clock has reached its arrival, and not asked before."""
    checked = rule(f.Absent(leaf("b"), 5 * SECOND, leaf("a")))
    step = machine.feed(checked, "null", EMPTY, Match((1,), event(1, 0), 10 * SECOND), 3 * SECOND)
    assert (step.decisions, step.wake) == ((), 10 * SECOND)
    assert [each.at for each in machine.tick(checked, "null", step.state, 10 * SECOND).decisions] == [10 * SECOND]


def test_what_a_stage_held_goes_on_when_an_edit_takes_the_stage_away() -> None:
    before = rule(f.Count(leaf("a")), f.Stages(debounce=f.Debounce(60 * SECOND)))
    state = machine.feed(before, "null", EMPTY, Match((0,), event(1, 0), 0), -1).state
    after = rule(f.Count(leaf("a")))
    step = machine.tick(after, "null", state, SECOND)
    assert ([each.kind for each in step.decisions], step.state) == (["fired"], EMPTY)


def test_a_late_event_is_told_and_changes_nothing() -> None:
    checked = rule(f.Count(leaf("a"), 2, LONG), lateness=5 * SECOND)
    first = machine.feed(checked, "null", EMPTY, Match((0,), event(1, 0), 0), -1)
    late = machine.feed(checked, "null", first.state, Match((0,), event(2, 0), 5 * SECOND + 1), 0)
    assert (late.late, late.state, late.decisions) == (True, first.state, ())


def test_a_rule_that_one_event_decides_needs_no_state() -> None:
    plain = rule(f.Count(leaf("a")))
    assert plain.stateless
    found = machine.decide_alone(plain, "null", event(1, 0), 10**12)
    assert found is not None
    assert found == machine.feed(plain, "null", EMPTY, Match((0,), event(1, 0), 10**12), 0).decisions[0]
    assert found.id == machine.feed(plain, "null", EMPTY, Match((0,), event(1, 0), 10**12), 0).decisions[0].id
    assert machine.decide_alone(rule(f.Count(leaf("a")), enabled=False), "null", event(1, 0), 0) is None


@pytest.mark.parametrize(
    "memory",
    [f.Stages(dedupe=f.Dedupe(("subject",), 1)), f.Stages(debounce=f.Debounce(1)), f.Stages(limits=(f.Limit(1, 1),))],
    ids=["dedupe", "debounce", "throttle"],
)
def test_a_stage_with_a_memory_needs_state(memory: f.Stages) -> None:
    assert not rule(f.Count(leaf("a")), memory).stateless
    assert not rule(f.Count(leaf("a")), order_event_time=True).stateless


def ticks(policy: str, clock: int) -> list[int]:
    every = f.Schedule(lambda now: (now // LONG + 1) * LONG, missed=policy)  # type: ignore[arg-type]  # parametrized
    checked = rule(every)
    step = machine.load(checked, "null", EMPTY, 0)
    assert step.wake == LONG
    return [each.at // LONG for each in machine.tick(checked, "null", step.state, clock).decisions]


@pytest.mark.parametrize(("policy", "expected"), [("all", [1, 2, 3]), ("latest", [3]), ("none", [])])
def test_due_times_that_were_missed(policy: str, expected: list[int]) -> None:
    assert ticks(policy, 3 * LONG + 600 * SECOND) == expected


@pytest.mark.parametrize("policy", ["all", "latest", "none"])
def test_a_due_time_that_is_a_moment_old_was_not_missed(policy: str) -> None:
    assert ticks(policy, LONG + SECOND) == [1]
