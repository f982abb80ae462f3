"""`simulate`: many rules over recorded events with a virtual clock."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.support.core_rules import Told, leaf, mappings, rule

from penstock.events import Event
from penstock.events.instants import SECOND
from penstock.triggers import forms as f
from penstock.triggers import simulate
from penstock.triggers.simulation import NoTimeError

TWO = f.Count(leaf("a"), 2, 10 * SECOND)
PAIR = [Told("e1", "a", "k1", 1, 1, 1), Told("e2", "a", "k1", 2, 2, 1)]


def test_a_decision_is_printed_as_the_design_says() -> None:
    [found] = simulate([rule(TWO)], mappings(PAIR))
    assert found.to_mapping() == {
        "at": "1970-01-01T00:00:02Z",
        "automation": "r",
        "kind": "fired",
        "key": "k1",
        "events": ["e1", "e2"],
        "reason": "",
    }


def test_rules_may_be_given_as_they_are_loaded() -> None:
    compiled = SimpleNamespace(rule=rule(TWO))
    assert [len(list(simulate(each, mappings(PAIR)))) for each in ([compiled], SimpleNamespace(rules=[compiled]))] == [
        1,
        1,
    ]


def test_events_may_be_models_and_the_end_a_datetime() -> None:
    silence = f.Absent(leaf("b"), 10 * SECOND, leaf("a"))
    event = Event(id="e1", type="a", subject="k", time=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(simulate([rule(silence)], [event])) == []
    [found] = simulate([rule(silence)], [event], datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC))
    assert found.to_mapping()["at"] == "2026-01-01T00:00:10Z"


def test_without_any_time_there_is_no_clock() -> None:
    event = {"id": "e1", "source": "/test", "type": "a"}
    with pytest.raises(NoTimeError, match="'e1' has no `time`"):
        list(simulate([rule(TWO)], [event]))
    timed = mappings(PAIR)[:1]
    [found] = simulate([rule(TWO)], [*timed, event | {"id": "e9", "subject": "k1"}])
    assert (found.at, found.events) == (SECOND, ["e1", "e9"])


def test_nothing_arrives_after_the_end() -> None:
    assert list(simulate([rule(TWO)], mappings(PAIR), SECOND)) == []


def test_timers_of_the_last_arrival_still_ring_without_an_end() -> None:
    silence = f.Absent(leaf("b"), SECOND, leaf("a"))
    assert [each.events for each in simulate([rule(silence)], mappings(PAIR))] == [["e1"]]


def test_many_rules_over_many_events_take_their_time_from_what_matches() -> None:
    rules = [rule(f.Count(leaf(f"t{number}"), 2, 10 * SECOND)) for number in range(2_000)]
    events = [Told(f"e{number}", f"t{number % 4_000}", "k", number, number, 1) for number in range(4_000)]
    assert list(simulate(rules, mappings(events))) == []
