"""The stages: dedupe, if, debounce, throttle, mode; each by itself and with others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.core_rules import Told, leaf, mappings, rule

from penstock.events.instants import SECOND
from penstock.triggers import deduping, simulate, stages
from penstock.triggers import forms as f
from penstock.triggers.conditions import Context, Verdict
from penstock.triggers.decisions import Decision
from penstock.triggers.evidence import Evidence
from penstock.triggers.state import Passed

MINUTE = 60 * SECOND
EACH = f.Count(leaf("a"))


def told(id_: str, time: int, v: Any = 1, subject: str = "k1") -> Told:
    return Told(id_, "a", subject, time, time, v)


def decided(when: f.Trigger, flow: f.Stages, *events: Told, until: int = 1_000, **keys: Any) -> list[Decision]:
    run_time = keys.pop("assume_run_time", None)
    found = simulate([rule(when, flow, **keys)], mappings(events), until * SECOND, assume_run_time=run_time)
    return list(found)


def shown(decisions: list[Decision]) -> list[tuple[int, str, list[str]]]:
    return [(each.at // SECOND, each.kind, each.events) for each in decisions]


@pytest.mark.parametrize(("keep", "value", "from_"), [("first", 2, 1), ("last", 3, 2), ("all", 3, 2)])
def test_debounce_keeps_the_values_of_the_firing_it_names_and_the_events_of_all(
    keep: f.Keep, value: int, from_: int
) -> None:
    changed = f.Changed(leaf("a"), "data.v")
    events = [told("e1", 0), told("e2", 1, 2), told("e3", 2, 3)]
    [found] = decided(changed, f.Stages(debounce=f.Debounce(5 * SECOND, keep=keep)), *events)
    assert (found.at, found.events, found.value, found.from_) == (7 * SECOND, ["e2", "e3"], value, from_)


def test_a_debounced_firing_has_an_identity_of_its_own_each_time() -> None:
    every = f.Schedule(lambda instant: (instant // (10 * SECOND) + 1) * 10 * SECOND)
    found = decided(every, f.Stages(debounce=f.Debounce(3 * SECOND)), told("e1", 0), until=40)
    assert [each.at // SECOND for each in found] == [13, 23, 33]
    assert len({each.id for each in found}) == 3


class Says:
    """A condition that notes what it was shown."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.seen: list[Context] = []

    def evaluate(self, context: Context) -> Verdict:
        self.seen.append(context)
        return self.verdict


def test_a_condition_sees_event_events_trigger_and_vars() -> None:
    condition = Says(Verdict(True))
    two = f.Count(leaf("a"), 2, MINUTE)
    [found] = decided(two, f.Stages(condition=condition), told("e1", 0), told("e2", 1, 5), vars={"most": 7})
    [context] = condition.seen
    assert context.event is not None
    assert (context.event["data"], [each["id"] for each in context.events]) == ({"v": 5}, ["e1", "e2"])
    trigger = context.trigger.to_mapping()
    assert trigger | {"id": ""} == {
        "automation": "r", "kind": "fired", "key": "k1", "at": "1970-01-01T00:00:01Z", "id": "", "value": None,
        "from": None,
    }  # fmt: skip
    assert (trigger["id"], context.vars) == (found.id, {"most": 7})


def test_the_event_of_a_silence_from_loading_is_null() -> None:
    condition = Says(Verdict(False, "event is null"))
    silence = f.Absent(leaf("b", ()), MINUTE)
    [found] = decided(silence, f.Stages(condition=condition), told("e1", 0))
    assert (condition.seen[0].event, found.kind, found.reason) == (None, "suppressed", "if: event is null")


def test_a_resolve_passes_no_stage_and_exists_only_if_its_firing_was_let_through() -> None:
    metric = f.Metric(leaf("a"), "data.v", 5 * SECOND, "max", ">", 5)
    events = [told("m1", 0, 9), told("m2", 10, 1), told("m3", 20, 9), told("m4", 30, 1)]
    flow = f.Stages(limits=(f.Limit(1, MINUTE, "cooldown"),))
    assert shown(decided(metric, flow, *events)) == [
        (0, "fired", ["m1"]),
        (10, "resolved", ["m2"]),
        (20, "suppressed", ["m3"]),
    ]


def test_a_firing_that_debounce_merged_away_takes_its_resolve_with_it() -> None:
    watch = f.Absent(leaf("a"), 10 * SECOND)
    beats = [told("e1", 0), told("e2", 12), told("e3", 40)]
    flow = f.Stages(debounce=f.Debounce(15 * SECOND))
    assert shown(decided(watch, flow, *beats, until=45)) == [(37, "fired", ["e1", "e2"]), (40, "resolved", ["e3"])]


@given(st.integers(1, 5), st.integers(1, 30), st.lists(st.integers(0, 200), max_size=60).map(sorted))
def test_a_limit_lets_exactly_n_through_in_any_span(n: int, span: int, times: list[int]) -> None:
    limits = (f.Limit(n, span),)
    log: tuple[Passed, ...] = ()
    passed: list[int] = []
    for at in times:
        if not stages.throttled(limits, log, at):
            log = stages.noted(limits, log, at)
            passed.append(at)
            assert sum(at - span < one <= at for one in passed) <= n
        else:
            assert sum(at - span < one <= at for one in passed) == n


def test_a_log_too_long_for_one_state_lets_fewer_through_never_more() -> None:
    limits = (f.Limit(5_000, 10_000),)
    log: tuple[Passed, ...] = ()
    passed: list[int] = []
    for at in range(20_000):
        if not stages.throttled(limits, log, at):
            log = stages.noted(limits, log, at)
            passed.append(at)
    assert len(log) <= stages.LOG
    most = max(sum(start < one <= start + 10_000 for one in passed) for start in range(0, 10_000, 500))
    assert 4_000 < most <= 5_000


MODES = [
    ("parallel", [(0, "fired"), (1, "fired"), (2, "fired"), (12, "fired")]),
    ("single", [(0, "fired"), (1, "suppressed"), (2, "suppressed"), (12, "fired")]),
    ("queued", [(0, "fired"), (1, "fired"), (2, "fired"), (12, "fired")]),
    ("restart", [(0, "fired"), (1, "fired"), (2, "fired"), (12, "fired")]),
    ("keep_latest", [(0, "fired"), (1, "fired"), (2, "suppressed"), (2, "fired"), (12, "fired")]),
]


@pytest.mark.parametrize(("mode", "expected"), MODES)
def test_modes_look_at_what_has_not_ended(mode: f.Mode, expected: list[tuple[int, str]]) -> None:
    events = [told("e1", 0), told("e2", 1), told("e3", 2), told("e4", 12)]
    found = decided(EACH, f.Stages(mode=mode), *events, assume_run_time=10 * SECOND)
    assert [(each.at // SECOND, each.kind) for each in found] == expected
    assert all(each.reason.startswith("mode") for each in found if each.kind == "suppressed")


@pytest.mark.parametrize("mode", ["single", "queued", "restart", "parallel", "keep_latest"])
def test_without_a_run_time_no_mode_drops_anything(mode: f.Mode) -> None:
    found = decided(EACH, f.Stages(mode=mode), told("e1", 0), told("e2", 0), told("e3", 0))
    assert [each.kind for each in found] == ["fired"] * 3


def test_dedupe_forgets_a_value_as_soon_as_it_may_pass_again() -> None:
    checked = rule(EACH, f.Stages(dedupe=f.Dedupe(("data.v",), 10 * SECOND)))
    event = Evidence(0, "/test", "e1", b"{}")
    found = deduping.dedupe(checked, deduping.UNSEEN, event, 0, (('"k1"', (0,)),), -1)
    assert (len(found.passed), found.expires) == (1, 10 * SECOND)
    stored = deduping.decode(deduping.encode(found.state))
    assert deduping.tick(checked, stored, 10 * SECOND - 1).state == stored
    assert deduping.tick(checked, stored, 10 * SECOND).state is deduping.UNSEEN


def test_a_late_event_is_nothing_to_dedupe() -> None:
    two = f.Count(leaf("a"), 2, MINUTE)
    late = Told("late", "a", "k1", 0, 50, 1)
    events = [Told("x", "other", "k1", 50, 50, 1), late, told("e1", 51), told("e2", 62)]
    assert shown(decided(two, f.Stages(dedupe=f.Dedupe(("data.v",), 10 * SECOND)), *events)) == [
        (62, "fired", ["e1", "e2"])
    ]
