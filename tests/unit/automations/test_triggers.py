"""Every form of `when` as the core's forms, and when two ways to write one mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rule_texts import rule, rules

from penstock.automations import Automation
from penstock.triggers import forms
from penstock.triggers.forms import UNSET

SECOND = 1_000_000
MINUTE = 60 * SECOND


def loaded(when: str, more: str = "", top: str = "") -> Automation:
    (found,) = rules(top + rule(when, more=more)).require().rules
    return found


def test_a_count() -> None:
    trigger = loaded("{event: a, count: 3, within: 5m, per: subject}").rule.trigger
    assert isinstance(trigger, forms.Count)
    assert (trigger.count, trigger.within, trigger.leaf.per) == (3, 5 * MINUTE, ("subject",))


def test_an_absence_with_its_question() -> None:
    found = loaded("{absent: {event: b}, after: {event: a, per: data.id}, within: 1m, per: subject, grace: 5s}")
    trigger = found.rule.trigger
    assert isinstance(trigger, forms.Absent)
    assert trigger.after is not None
    assert (trigger.within, trigger.leaf.per, trigger.after.per) == (MINUTE, ("subject",), ("data.id",))
    assert (found.rule.grace, found.event_types) == (5 * SECOND, ("b", "a"))


def test_children_take_the_key_of_the_composite_unless_they_have_one() -> None:
    trigger = loaded(
        "{sequence: [{event: a}, {all: [{event: b, per: data.x}, {event: c}]}], per: subject}"
    ).rule.trigger
    assert isinstance(trigger, forms.Sequence)
    assert sorted(leaf.per for leaf in forms.leaves_of(trigger)) == [("data.x",), ("subject",), ("subject",)]
    assert trigger.within is None


@pytest.mark.parametrize(
    ("when", "n"),
    [
        ("{all: [{event: a}, {event: b}, {event: c}]}", 3),
        ("{any: [{event: a}, {event: b}, {event: c}]}", 1),
        ("{at_least: 2, of: [{event: a}, {event: b}, {event: c}], within: 1m}", 2),
    ],
)
def test_all_any_and_some(when: str, n: int) -> None:
    trigger = loaded(when).rule.trigger
    assert isinstance(trigger, forms.AtLeast)
    assert (trigger.n, len(trigger.of)) == (n, 3)


def test_a_metric_looks_at_any_event_where_none_is_named() -> None:
    found = loaded("{metric: {value: data.v, over: 1m, stat: p95, op: '<', threshold: 5, for: 2m, clear: 7.5}}")
    trigger = found.rule.trigger
    assert isinstance(trigger, forms.Metric)
    assert (trigger.value, trigger.over, trigger.stat, trigger.op) == ("data.v", MINUTE, "p95", "<")
    assert (trigger.threshold, trigger.for_, trigger.clear, found.event_types) == (5, 2 * MINUTE, 7.5, ("*",))
    assert trigger.leaf.pattern.matches({"type": "whatever"})


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        ("", (UNSET, UNSET)),
        (", from: null", (None, UNSET)),
        (", to: 5", (UNSET, 5)),
        (", from: a, to: [1]", ("a", [1])),
    ],
)
def test_a_change_tells_null_from_nothing(more: str, ends: tuple[Any, Any]) -> None:
    trigger = loaded(f"{{event: s, changed: data.v{more}}}").rule.trigger
    assert isinstance(trigger, forms.Changed)
    assert (trigger.from_, trigger.to) == ends


def test_the_stages() -> None:
    more = "    dedupe: {by: [subject, data.n], for: 1h}\n    debounce: {quiet: 5s, max: 1m, keep: all}\n"
    more += "    limit: 10/1h\n    storm: 100/1m\n    mode: queued\n    if: event.data.x > 1\n"
    stages = loaded("{event: a}", more).rule.stages
    assert stages.dedupe == forms.Dedupe(("subject", "data.n"), 60 * MINUTE)
    assert stages.debounce == forms.Debounce(5 * SECOND, MINUTE, "all")
    assert stages.limits == (forms.Limit(10, 60 * MINUTE),)
    assert (stages.storm, stages.mode) == (forms.Storm(100, MINUTE), "queued")
    assert stages.condition is not None


def test_a_short_debounce_and_a_cooldown() -> None:
    stages = loaded("{event: a}", "    debounce: 5s\n    cooldown: 1m\n").rule.stages
    assert stages.debounce == forms.Debounce(5 * SECOND)
    assert stages.limits == (forms.Limit(1, MINUTE, "cooldown"),)


def test_defaults_of_a_file_and_what_a_rule_says_instead() -> None:
    top = "defaults: {cooldown: 5m, mode: single, storm: 9/1m, grace: 3s, order: event_time}\n"
    found = loaded("{absent: {event: a}, within: 1m}", top=top).rule
    assert (found.stages.limits[0].span, found.stages.mode, found.grace) == (5 * MINUTE, "single", 3 * SECOND)
    assert found.order_event_time
    here = loaded("{absent: {event: a}, within: 1m, order: arrival}", "    limit: 2/1m\n    mode: parallel\n", top).rule
    assert here.stages.limits == (forms.Limit(1, 5 * MINUTE, "cooldown"), forms.Limit(2, MINUTE))
    assert here.stages.mode == "parallel"
    assert not here.order_event_time


OLD = {
    "{event: a}": "14b3d99eeb8a41e276d625a352d78d53",
    "{event: [b, a], per: subject}": "9a65a2156cfdf8eafdeda8fb8a885918",
    "{event: 'a.*', where: {data: {x: 1, y: [{prefix: z}]}}, per: [subject, data.m], count: 3, within: 5m,"
    " lateness: 10s, late: accept}": "1698c1c85b8e7700132195ba262525ed",
    "{event: a, count: 1, within: 5m}": "14b3d99eeb8a41e276d625a352d78d53",
    "{event: a, lateness: 1m}": "17575103cf789b50e97860e0307f4df5",
    "{event: '*', count: 2, within: 1h30m}": "be4057871441f41596618e10330a3362",
}


@pytest.mark.parametrize(("when", "digest"), OLD.items())
def test_digests_of_rules_that_are_in_force_stay_as_they_are(when: str, digest: str) -> None:
    assert loaded(when).when_digest == digest


SAME = [
    [
        "{all: [{event: a}, {event: b}]}",
        "{all: [{event: b}, {event: a}]}",
        "{at_least: 2, of: [{event: a}, {event: b}]}",
    ],
    ["{all: [{event: a}, {event: b}], per: subject}", "{all: [{event: a, per: subject}, {event: b, per: [subject]}]}"],
    [
        "{metric: {value: data.v, over: 60s, stat: max, op: '>', threshold: 5}}",
        "{event: '*', metric: {op: '>', value: data.v, over: 1m, stat: max, threshold: 5.0, for: 0s}}",
    ],
    ["{event: s, changed: data.v, to: 1}", "{to: 1.0, changed: data.v, event: [s]}"],
    ["{absent: {event: a}, within: 60s}", "{within: 1m, absent: {event: [a]}, grace: 0s, order: arrival}"],
    ["{schedule: {cron: '0 9 * * MON'}}", "{schedule: {cron: '0  9 * * mon', timezone: UTC, jitter: 0s}}"],
    ["{event: a, order: event_time}", "{order: event_time, event: a, lateness: 30s}"],
]


@pytest.mark.parametrize("ways", SAME, ids=lambda ways: str(ways[0]))
def test_another_way_to_write_it_keeps_the_digest(ways: list[str]) -> None:
    assert len({loaded(way).when_digest for way in ways}) == 1


OTHERS = [
    "{event: a}", "{event: a, order: event_time}", "{any: [{event: a}]}", "{any: [{event: a}], within: 1m}",
    "{sequence: [{event: a}, {event: b}]}", "{sequence: [{event: b}, {event: a}]}", "{all: [{event: a}, {event: b}]}",
    "{any: [{event: a}, {event: b}]}", "{all: [{event: a}, {event: b}], per: subject}",
    "{all: [{event: a}, {event: b}], within: 1m}", "{absent: {event: a}, within: 1m}",
    "{absent: {event: a}, within: 2m}", "{absent: {event: a}, within: 1m, grace: 1s}",
    "{absent: {event: a}, after: {event: b}, within: 1m}", "{absent: {event: b}, after: {event: a}, within: 1m}",
    "{absent: {event: a}, within: 1m, per: subject}", "{event: s, changed: data.v}", "{event: s, changed: data.w}",
    "{event: s, changed: data.v, to: null}", "{event: s, changed: data.v, from: null}",
    "{event: s, changed: data.v, to: '1'}", "{event: s, changed: data.v, to: 1}",
    "{event: s, changed: data.v, to: true}",
    "{event: s, changed: data.v, for: 1m}", "{metric: {value: data.v, over: 1m, stat: max, op: '>', threshold: 5}}",
    "{metric: {value: data.v, over: 1m, stat: max, op: '>=', threshold: 5}}",
    "{metric: {value: data.v, over: 1m, stat: max, op: '>', threshold: 5, clear: 5}}",
    "{schedule: {every: 5m}}", "{schedule: {every: 10m}}", "{schedule: {cron: '*/5 * * * *'}}",
    "{schedule: {cron: '*/5 * * * *', timezone: Europe/Vienna}}", "{schedule: {rrule: FREQ=DAILY}}",
    "{schedule: {cron: '*/5 * * * *', jitter: 1m}}",
    "{schedule: {cron: '*/5 * * * *', calendar: {weekdays: [mon]}}}",
    "{all: [{any: [{event: a}, {event: b}]}, {event: c}]}", "{any: [{all: [{event: a}, {event: b}]}, {event: c}]}",
]  # fmt: skip


def test_another_meaning_has_another_digest() -> None:
    assert len({loaded(when).when_digest for when in OTHERS}) == len(OTHERS)


SPANS = st.sampled_from(["10s", "60s", "1m", "90s", "1m30s", "1h"])
LEAVES = st.builds(
    lambda event, per, count, within: (
        {"event": event} | ({"per": per} if per else {}) | ({"count": count, "within": within} if count > 1 else {})
    ),
    st.sampled_from(["a", "b.*", ["a", "b"]]),
    st.sampled_from([None, "subject", "data.x"]),
    st.integers(1, 3),
    SPANS,
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda form, children, within: {form: children} | ({"within": within} if within else {}),
        st.sampled_from(["all", "any", "sequence"]),
        st.lists(inner, min_size=1, max_size=3),
        st.none() | SPANS,
    ),
    max_leaves=6,
)


def shuffled(tree: Any, random: Any) -> Any:
    """The same trigger with its keys, and the children whose order says nothing, in another order."""
    if not isinstance(tree, dict):
        return tree
    items = list(tree.items())
    random.shuffle(items)
    found = {}
    for key, value in items:
        if key in ("all", "any", "sequence"):
            value = [shuffled(child, random) for child in value]
            if key != "sequence":
                random.shuffle(value)
        found[key] = value
    return found


@settings(deadline=None)
@given(TREES, st.randoms(use_true_random=False))
def test_a_digest_depends_on_the_meaning_alone(tree: dict[str, Any], random: Any) -> None:
    first, second = loaded(str(tree)), loaded(str(shuffled(tree, random)))
    assert first.when_digest == second.when_digest
    assert [leaf.per for leaf in forms.leaves(first.rule)] == [leaf.per for leaf in forms.leaves(second.rule)]


@settings(deadline=None)
@given(TREES, TREES)
def test_triggers_of_one_digest_have_the_same_leaves(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = loaded(str(one)), loaded(str(other))
    if first.when_digest == second.when_digest:
        leaves = [[leaf.per for leaf in forms.leaves(each.rule)] for each in (first, second)]
        assert leaves[0] == leaves[1]
