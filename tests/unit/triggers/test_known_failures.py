"""What other tools get wrong, each as a test of ours by its name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.core_engine import CoreEngine
from tests.support.core_rules import Told, leaf, mappings, rule

from penstock.events.instants import SECOND
from penstock.triggers import Pattern, machine, simulate
from penstock.triggers import forms as f
from penstock.triggers.keys import NO_KEY
from penstock.triggers.simulation import evidence_of
from penstock.triggers.state import EMPTY, decode, encode

MINUTE = 60 * SECOND
THREE_A_MINUTE = f.Count(leaf("a"), 3, MINUTE)
WATCH = f.Absent(leaf("a"), MINUTE)


def told(id_: str, time: int, *, type_: str = "a", subject: str = "k1", arrival: int | None = None, v: Any = 1) -> Told:
    return Told(id_, type_, subject, time, time if arrival is None else arrival, v)


def decided(when: f.Trigger, *events: Told, until: int = 10_000, **keys: Any) -> list[tuple[int, str, Any, list[str]]]:
    found = simulate([rule(when, lateness=30 * SECOND, **keys)], mappings(events), until * SECOND)
    return [(each.at // SECOND, each.kind, each.key_value, each.events) for each in found]


def test_fixed_windows_miss_a_burst_across_their_border() -> None:
    burst = [told("e1", 59), told("e2", 60), told("e3", 61)]
    assert decided(THREE_A_MINUTE, *burst) == [(61, "fired", "k1", ["e1", "e2", "e3"])]


@pytest.mark.parametrize(
    "when",
    [
        THREE_A_MINUTE,
        f.Changed(leaf("a"), "data.v", to=3),
        f.Metric(leaf("a"), "data.v", MINUTE, "sum", ">=", 6),
        f.Sequence((f.Count(leaf("a")), f.Count(leaf("a")), f.Count(leaf("a"))), MINUTE),
    ],
    ids=["count", "changed", "metric", "sequence"],
)
def test_one_event_stamped_in_the_future_mutes_a_rule(when: f.Trigger) -> None:
    ahead = told("ahead", 500_000, arrival=1, v=0)
    found = decided(when, told("e1", 0), ahead, told("e2", 2, v=2), told("e3", 3, v=3))
    assert [(at, kind) for at, kind, _, _ in found][:1] == [(3, "fired")]


def test_one_event_stamped_in_the_future_mutes_a_heartbeat_watch() -> None:
    found = decided(WATCH, told("e1", 0), told("ahead", 500_000, arrival=10), until=100)
    assert found == [(70, "fired", "k1", ["ahead"])]


def test_a_heartbeat_watch_per_device_with_no_arming_event_never_fires_or_fires_late_or_twice() -> None:
    beats = [told("x1", 0, subject="x"), told("y1", 5, subject="y"), told("x2", 30, subject="x")]
    assert decided(WATCH, *beats, until=1_000) == [(65, "fired", "y", ["y1"]), (90, "fired", "x", ["x2"])]


def test_the_watch_tells_each_silence_once_and_its_end() -> None:
    found = decided(WATCH, told("x1", 0), told("x2", 500), told("x3", 520), until=1_000)
    assert found == [
        (60, "fired", "k1", ["x1"]),
        (500, "resolved", "k1", ["x2"]),
        (580, "fired", "k1", ["x3"]),
    ]


@pytest.mark.parametrize(
    "composite", [f.Sequence, lambda of, within: f.AtLeast(2, of, within)], ids=["sequence", "all"]
)
def test_composite_children_ignore_the_key(composite: Any) -> None:
    when = composite((f.Count(leaf("a")), f.Count(leaf("b"))), MINUTE)
    events = [told("a1", 1, subject="x"), told("b1", 2, type_="b", subject="y"), told("b2", 3, type_="b", subject="x")]
    assert decided(when, *events) == [(3, "fired", "x", ["a1", "b2"])]


def test_a_child_may_carry_the_key_elsewhere() -> None:
    elsewhere = f.Leaf(Pattern({"type": ["b"]}), ("data.v",))
    when = f.AtLeast(2, (f.Count(leaf("a")), f.Count(elsewhere)), MINUTE)
    events = [told("a1", 1, subject="x"), told("b1", 2, type_="b", subject="y", v="x")]
    assert decided(when, *events) == [(2, "fired", "x", ["a1", "b1"])]


def test_a_half_matched_all_of_yesterday_pairs_with_today() -> None:
    when = f.AtLeast(2, (f.Count(leaf("a")), f.Count(leaf("b"))), MINUTE)
    assert decided(when, told("a1", 0), told("b1", 86_400, type_="b"), until=90_000) == []


def test_sequence_order_is_the_order_of_delivery() -> None:
    when = f.Sequence((f.Count(leaf("a")), f.Count(leaf("b"))), MINUTE)
    swapped = [told("b1", 12, type_="b"), told("a1", 10, arrival=14)]
    assert decided(when, *swapped) == [(14, "fired", "k1", ["a1", "b1"])]
    wrong_way_round = [told("a1", 12), told("b1", 10, type_="b", arrival=14)]
    assert decided(when, *wrong_way_round) == []


def test_an_answer_that_came_in_time_but_was_delivered_late_is_a_false_alarm() -> None:
    when = f.Absent(leaf("b"), MINUTE, leaf("a"))
    events = [told("a1", 0), told("b1", 58, type_="b", arrival=65)]
    assert decided(when, *events) == [(60, "fired", "k1", ["a1"])]  # known: it says nothing of late answers
    assert decided(when, *events, grace=10 * SECOND) == []
    assert decided(when, *events, order_event_time=True) == []


def test_absences_fire_after_an_outage_before_the_backlog_is_read() -> None:
    """Ten minutes of beats were not read; the clock stands until they are."""
    beats = mappings(told(f"x{n}", 50 * n) for n in range(12))
    engine = CoreEngine(rule(WATCH))
    assert list(engine.play(beats, iter([0, 0, *[600 * SECOND] * 10]), 600 * SECOND)) == []
    [found] = engine.tick(700 * SECOND)
    assert (found.at, found.events) == (610 * SECOND, ["x11"])


def test_two_events_in_one_millisecond_count_as_one() -> None:
    same = [told("e1", 1), told("e2", 1), told("e3", 1)]
    assert decided(THREE_A_MINUTE, *same) == [(1, "fired", "k1", ["e1", "e2", "e3"])]
    assert len(decided(THREE_A_MINUTE, *same, order_event_time=True)) == 1


def restarted(when: f.Trigger, events: list[Told], until: int) -> list[tuple[int, str]]:
    """With the state written down and read again after every step."""
    engine = CoreEngine(rule(when, lateness=30 * SECOND), stored=True)
    found = engine.play(mappings(events), iter([0] * len(events)), until * SECOND)
    return [(each.at // SECOND, each.kind) for each in found]


def test_hysteresis_forgets_itself_at_restart() -> None:
    when = f.Metric(leaf("a"), "data.v", 10 * SECOND, "max", ">", 5, clear=3)
    events = [told("m1", 0, v=6), told("m2", 20, v=4), told("m3", 40, v=6), told("m4", 60, v=2)]
    assert restarted(when, events, 100) == [(0, "fired"), (60, "resolved")]


def test_for_forgets_itself_at_restart() -> None:
    metric = f.Metric(leaf("a"), "data.v", MINUTE, "max", ">", 5, for_=30 * SECOND)
    assert restarted(metric, [told("m1", 0, v=6), told("m2", 20, v=7)], 100)[:1] == [(30, "fired")]
    changed = f.Changed(leaf("a"), "data.v", to=2, for_=30 * SECOND)
    assert restarted(changed, [told("m1", 0), told("m2", 5, v=2), told("m3", 20, v=2)], 100) == [(35, "fired")]


def test_disabling_forgets_what_was_counted() -> None:
    enabled, disabled = rule(THREE_A_MINUTE), rule(THREE_A_MINUTE, enabled=False)
    state = EMPTY
    for number, each in enumerate([disabled, disabled, enabled]):
        event = mappings([told(f"e{number}", number)])[0]
        match = machine.Match((0,), evidence_of(event, 0), number * SECOND)
        step = machine.feed(each, '"k1"', decode(encode(state)), match, number * SECOND - 1)
        state = step.state
    assert [each.kind for each in step.decisions] == ["fired"]


def test_not_defined_null_missing_and_empty_are_mixed_up() -> None:
    twice = f.Count(f.Leaf(Pattern({"type": ["a"]}), ("data.v",)), 2, MINUTE)
    events = [told("e1", 1, v=None), told("e2", 2, v=""), told("e3", 3, v=0), told("e4", 4, v=False)]
    assert decided(twice, *events) == []
    assert decided(twice, told("e1", 1, v=None), told("e2", 2, v=None)) == [(2, "fired", None, ["e1", "e2"])]


def test_null_is_a_value_of_changed_and_a_missing_field_is_none() -> None:
    any_change = f.Changed(leaf("a"), "data.v")
    assert [at for at, *_ in decided(any_change, told("e1", 1), told("e2", 2, v=None), told("e3", 3))] == [2, 3]
    elsewhere = f.Changed(leaf("a"), "data.w")
    assert decided(elsewhere, told("e1", 1), told("e2", 2, v=None)) == []
    from_null = f.Changed(leaf("a"), "data.v", from_=None)
    assert [at for at, *_ in decided(from_null, told("e1", 1, v=0), told("e2", 2, v=None), told("e3", 3))] == [3]


@pytest.mark.parametrize("value", [7, 7.5, True, None, [], {}, "", 10**30])
def test_a_regex_or_prefix_on_a_number_crashes(value: Any) -> None:
    prefix = Pattern({"type": ["a"], "data": {"v": [{"prefix": "x"}]}})
    assert decided(f.Count(f.Leaf(prefix)), told("e1", 1, v=value)) == []
    metric = f.Metric(leaf("a"), "data.v", MINUTE, "max", ">", 10**40)
    assert decided(metric, told("e1", 1, v=value)) == []
    compared = f.Changed(leaf("a"), "data.v", to="x")
    assert decided(compared, told("e1", 1, v=value), told("e2", 2, v="x"))[0][0] == 2


def test_a_rule_without_events_is_not_woken_for_nothing() -> None:
    assert machine.tick(rule(THREE_A_MINUTE), NO_KEY, EMPTY, 10**15).state is EMPTY


@pytest.mark.parametrize("when", [WATCH, f.Absent(leaf("b"), MINUTE, leaf("a"))], ids=["watch", "wait"])
def test_silence_is_told_across_a_gap_in_the_log(when: f.Trigger) -> None:
    """What the log lost may have been the sign of life: a watch begins anew behind the gap, a wait is let go."""
    checked = rule(when)
    leaves = (0,) if when is WATCH else (1,)
    match = machine.Match(leaves, evidence_of(mappings([told("e1", 0)])[0], 0), 0)
    state = machine.feed(checked, NO_KEY, EMPTY, match, -1).state
    lost = machine.gap(checked, NO_KEY, state, 500 * SECOND)
    assert lost.decisions == ()
    found = machine.tick(checked, NO_KEY, lost.state, 1_000 * SECOND).decisions
    assert [each.at // SECOND for each in found] == ([560] if when is WATCH else [])


def test_a_match_from_before_the_loading_is_the_last_one_but_moves_no_deadline_back() -> None:
    watch = f.Absent(leaf("a", ()), MINUTE)
    assert decided(watch, told("e1", 0, arrival=5), until=100) == [(65, "fired", None, ["e1"])]
