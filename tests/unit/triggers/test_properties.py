"""What holds for every rule and every stream."""

from __future__ import annotations

from itertools import repeat
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.core_engine import CoreEngine
from tests.support.core_rules import LATENESS, Told, mappings, reordered, rule, rules, seconds, streams
from tests.support.core_rules import triggers as any_trigger
from tests.support.scale import scaled

from penstock.events.instants import SECOND
from penstock.triggers import forms as f
from penstock.triggers import simulate
from penstock.triggers.simulation import Simulation

FAR = 500 * SECOND
FOREVER = 4 * 24 * 3600 * SECOND
EXAMPLES = scaled(500)


def said(decisions: Any) -> list[Any]:
    """Decisions, comparable in any order of equal instants."""
    return sorted(
        (each.at, each.kind, each.key, each.events, each.id, each.reason, repr(each.value)) for each in decisions
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(rules(dedupe=True), streams())
def test_doubled_delivery_gives_the_same_decisions(rule: f.Rule, events: list[Told]) -> None:
    once = mappings(events)
    twice = [event for each in once for event in (each, each)]
    assert said(simulate([rule], twice, FAR)) == said(simulate([rule], once, FAR))


@settings(max_examples=EXAMPLES, deadline=None)
@given(rules(), streams(), st.data())
def test_a_clock_that_lags_behind_decides_what_an_exact_one_decides(
    rule: f.Rule, events: list[Told], data: st.DataObject
) -> None:
    lags = data.draw(st.lists(st.integers(0, 60).map(lambda n: n * SECOND), min_size=len(events), max_size=len(events)))
    lagging = CoreEngine(rule).play(mappings(events), iter(lags), FAR)
    assert said(lagging) == said(simulate([rule], mappings(events), FAR))


@settings(max_examples=EXAMPLES, deadline=None)
@given(rules(), streams())
def test_a_restart_after_every_step_changes_nothing(rule: f.Rule, events: list[Told]) -> None:
    stored = CoreEngine(rule, stored=True).play(mappings(events), repeat(0), FAR)
    assert said(stored) == said(simulate([rule], mappings(events), FAR))


@settings(max_examples=EXAMPLES, deadline=None)
@given(rules(dedupe=True, order=st.just(True)), streams(delay=(0, 12)), st.data())
def test_under_order_event_time_delivery_within_lateness_does_not_show(
    rule: f.Rule, events: list[Told], data: st.DataObject
) -> None:
    first = Told("first", "other", "k1", 0, 0, 0)  # schedules and watches begin with it
    size = len(events)
    delays = data.draw(st.lists(st.integers(0, LATENESS // SECOND), min_size=size, max_size=size))
    other = reordered(events, delays)
    expected = said(simulate([rule], mappings([first, *events]), FAR))
    assert said(simulate([rule], mappings([first, *other]), FAR)) == expected


@settings(max_examples=EXAMPLES, deadline=None)
@given(rules(dedupe=True), streams())
def test_decisions_come_in_order_of_time_and_each_has_its_own_identity(rule: f.Rule, events: list[Told]) -> None:
    found = list(simulate([rule], mappings(events), FAR))
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert len({each.id for each in found}) == len(found)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data(), streams())
def test_no_state_outlives_its_windows(data: st.DataObject, events: list[Told]) -> None:
    trigger = data.draw(any_trigger(("subject",), within=seconds).filter(_forgets))
    checked = rule(trigger, accept_late=data.draw(st.booleans()), order_event_time=data.draw(st.booleans()))
    engine = CoreEngine(checked, stored=True)
    list(engine.play(mappings(events), repeat(0), FOREVER))
    assert engine.states == {}
    simulation = Simulation((checked,))
    list(simulation.run(mappings(events), FOREVER))
    assert not simulation.waiting


def _forgets(trigger: f.Trigger) -> bool:
    """Whether it has windows alone, nothing that stands until an event changes it."""
    lasting = f.Changed | f.Schedule | f.Metric
    return not any(
        isinstance(each, lasting) or (isinstance(each, f.Absent) and each.after is None) for each in f.triggers(trigger)
    )
