"""Each machine against brute force that forgets nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import core_oracles as oracle
from tests.support.core_nested import Naive
from tests.support.core_rules import TYPES, Told, composites, counts, leaf, mappings, rule, streams
from tests.support.scale import scaled

from penstock.events.instants import SECOND
from penstock.triggers import forms as f
from penstock.triggers import simulate
from penstock.triggers.decisions import Decision

UNTIL = 250
many = settings(max_examples=scaled(1_000), deadline=None)
one_key = streams(keys=1)
spans = st.integers(1, 25)


def decided(trigger: f.Trigger, events: list[Told], **keys: Any) -> list[Decision]:
    return list(simulate([rule(trigger, **keys)], mappings(events), UNTIL * SECOND))


def firings(trigger: f.Trigger, events: list[Told], **keys: Any) -> list[oracle.Fired]:
    return [(each.at // SECOND, frozenset(each.events)) for each in decided(trigger, events, **keys)]


@many
@given(streams(keys=1, most=14), st.integers(2, 4), spans)
def test_count(events: list[Told], count: int, within: int) -> None:
    found = firings(f.Count(leaf("a"), count, within * SECOND), events)
    matches = [event for event in oracle.in_time(events) if event.type == "a"]
    assert found == oracle.counted(matches, count, within)


@many
@given(one_key, spans, st.integers(0, 8), st.sampled_from(["a", "b"]))
def test_absent_with_after(events: list[Told], within: int, grace: int, asks: str) -> None:
    trigger = f.Absent(leaf("b"), within * SECOND, leaf(asks))
    found = firings(trigger, events, grace=grace * SECOND)
    assert Counter(found) == Counter(oracle.unanswered(oracle.in_time(events), asks, "b", within, grace))


@many
@given(one_key, spans, st.integers(0, 8))
def test_absent_without_after(events: list[Told], within: int, grace: int) -> None:
    found = decided(f.Absent(leaf("a"), within * SECOND), events, grace=grace * SECOND)
    matches = [event for event in oracle.in_time(events) if event.type == "a"]
    expected = oracle.silences(matches, within, grace, UNTIL)
    assert [(each.at // SECOND, each.kind, frozenset(each.events)) for each in found] == expected


@many
@given(streams(keys=1, most=15), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3), st.none() | spans)
def test_sequence(events: list[Told], types: list[str], within: int | None) -> None:
    trigger = f.Sequence(tuple(f.Count(leaf(each)) for each in types), within and within * SECOND)
    assert firings(trigger, events) == oracle.sequence(oracle.in_time(events), types, within)


@many
@given(streams(keys=1, most=15), st.permutations(TYPES), st.integers(2, 3), st.none() | spans)
def test_all(events: list[Told], types: list[str], size: int, within: int | None) -> None:
    children = tuple(f.Count(leaf(each)) for each in types[:size])
    found = firings(f.AtLeast(size, children, within and within * SECOND), events)
    assert found == oracle.all_of(oracle.in_time(events), types[:size], within)


@many
@given(streams(keys=1, most=15), st.none() | spans)
def test_at_least_two_of_three_fires_when_any_pair_does(events: list[Told], within: int | None) -> None:
    children = tuple(f.Count(leaf(each)) for each in TYPES)
    found = decided(f.AtLeast(2, children, within and within * SECOND), events)
    kept: list[Told] = []
    expected: list[int] = []
    for new in oracle.in_time(events):
        kept.append(new)
        if any(new.type != one.type and (within is None or abs(new.time - one.time) <= within) for one in kept):
            expected.append(new.arrival)
            kept = []
    assert [each.at // SECOND for each in found] == expected
    assert all(len(each.events) == 2 for each in found)


@many
@given(
    one_key,
    spans,
    st.sampled_from(("avg", "min", "max", "sum", "count", "rate", "p50", "p95", "p99", "delta")),
    st.sampled_from([">", ">=", "<", "<="]),
    st.sampled_from([0.1, 1.0, 2.0, 3.5]),
    st.integers(0, 10),
    st.none() | st.integers(1, 2),
)
def test_metric(
    events: list[Told], over: int, stat: f.Statistic, op: f.Operator, threshold: float, lasts: int, gap: int | None
) -> None:
    clear = None if gap is None else threshold - gap if op in (">", ">=") else threshold + gap
    metric = f.Metric(leaf("a"), "data.v", over * SECOND, stat, op, threshold, lasts * SECOND, clear)
    samples = [event for event in oracle.in_time(events) if event.type == "a"]
    expected = oracle.Gauge(over, stat, op, threshold, lasts, clear).play(samples, UNTIL)
    found = [(each.at // SECOND, each.kind, each.value) for each in decided(metric, events)]
    assert found == expected


nested = st.recursive(
    counts(("subject",)), lambda below: composites(below, st.none() | spans.map(lambda n: n * SECOND)), max_leaves=4
)


@many
@given(streams(keys=1, most=16, delay=(-30, 12)), nested)
def test_nested_composites_fire_when_any_choice_of_firings_fulfils_them(events: list[Told], trigger: f.Trigger) -> None:
    naive = Naive.of(trigger)
    fired = [(event.arrival, naive.feed(event, number)) for number, event in enumerate(oracle.in_time(events))]
    expected = [(at, found) for at, found in fired if found is not None]
    found = firings(trigger, events)
    assert [at for at, _ in found] == [at for at, _ in expected]
