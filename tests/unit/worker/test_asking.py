"""What a worker makes of a run's wish to wait."""

from __future__ import annotations

import pytest

from penstock.events.bus import EVENTS, SYSTEM
from penstock.flows import RunCancelled, Suspended
from penstock.services.worker.asking import pattern_of, topics_of
from penstock.services.worker.run import suspended_in
from penstock.triggers import Matcher, Pattern

LEFT = Suspended("waits", key="k", paused=True)


@pytest.mark.parametrize(
    ("types", "topics"),
    [
        (["order.paid"], [EVENTS]),
        (["order.*", "shop.*"], [EVENTS]),
        (["penstock.run.completed"], [SYSTEM]),
        (["penstock.run.*", "order.paid"], [EVENTS, SYSTEM]),
        (["*"], [EVENTS, SYSTEM]),
        (["pen*"], [EVENTS, SYSTEM]),
        (["*.completed"], [EVENTS, SYSTEM]),
    ],
)
def test_events_are_looked_for_where_they_may_lie(types: list[str], topics: list[str]) -> None:
    assert topics_of(types) == topics


def test_types_and_where_are_one_pattern() -> None:
    matcher = Matcher()
    matcher.add("w", Pattern(pattern_of(["order.*", "shop.closed"], {"subject": ["A"]})))
    found = [
        matcher.match({"type": type_, "subject": subject})
        for type_, subject in [("order.paid", "A"), ("shop.closed", "A"), ("order.paid", "B"), ("shop.open", "A")]
    ]
    assert found == [{"w"}, {"w"}, set(), set()]


def test_a_group_of_nothing_but_waits_suspends_the_run() -> None:
    assert suspended_in(LEFT) is LEFT
    assert suspended_in(BaseExceptionGroup("tasks", [LEFT, BaseExceptionGroup("more", [Suspended("too")])])) is LEFT
    for other in (ValueError("broken"), RunCancelled()):
        assert suspended_in(BaseExceptionGroup("tasks", [LEFT, other])) is None
    assert suspended_in(ValueError("broken")) is None
