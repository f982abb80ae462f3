"""Rules at risk from lateness, and circles of rules: warnings, each with its remedy."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import only_problem, rule, rules

RISKS = [
    (
        "{event: a, count: 2, within: 10s}",
        32,
        "events may come 30s late, the window is 10s: what fires depends on the order of delivery",
        "add `order: event_time`, or shorten `lateness` to 10s",
    ),
    (
        "{all: [{event: a}, {event: b}], within: 10s}",
        43,
        "events may come 30s late, the window is 10s: what fires depends on the order of delivery",
        "add `order: event_time`, or shorten `lateness` to 10s",
    ),
    (
        "{absent: {event: a}, after: {event: b}, within: 20s}",
        51,
        "events may come 30s late and are waited for 20s: false alarms",
        "add `grace: 30s` or `order: event_time`, or shorten `lateness`",
    ),
    (
        "{event: m, metric: {value: data.v, over: 10s, stat: avg, op: '>', threshold: 1}}",
        46,
        "samples may come 30s late, when the window of 10s has left them behind",
        "add `order: event_time`, or shorten `lateness` to 10s",
    ),
    ("{event: a, grace: 5s}", 22, "`grace` changes nothing without `absent`", "remove it"),
    (
        "{all: [{event: a, per: subject}, {schedule: {every: 1h}}]}",
        11,
        "a `schedule` has the key null, so it never comes together with events that have a `per`",
        "remove `per`, or the schedule",
    ),
    (
        "{any: [{event: a, within: 5m}, {event: b}]}",
        29,
        "`within` changes nothing without `count`",
        "add e.g. `count: 3`, or remove `within`",
    ),
]


@pytest.mark.parametrize(("when", "column", "message", "hint"), RISKS)
def test_a_rule_at_risk_is_told_with_a_remedy(when: str, column: int, message: str, hint: str) -> None:
    found = only_problem(rule(when))
    assert (found.line, found.column, found.message, found.hint, found.severity) == (
        3,
        column,
        message,
        hint,
        "warning",
    )


@pytest.mark.parametrize(
    "when",
    [
        "{event: a, count: 2, within: 10s, order: event_time}",
        "{event: a, count: 2, within: 10s, lateness: 10s}",
        "{event: a, count: 2, within: 10s, lateness: 0s}",
        "{absent: {event: a}, within: 20s, grace: 30s}",
        "{absent: {event: a}, within: 20s, order: event_time}",
        "{absent: {event: a}, within: 31s}",
        "{sequence: [{event: a}, {event: b}]}",
        "{all: [{event: a}, {schedule: {every: 1h}}]}",
        "{any: [{event: a, per: subject}, {schedule: {every: 1h}}]}",
    ],
)
def test_what_is_at_no_risk_is_no_warning(when: str) -> None:
    assert rules(rule(when)).problems == ()


def chain(*links: tuple[str, str, str], more: str = "") -> str:
    """Rules as (name, when, action)."""
    items = "".join(f"  - name: {name}\n    when: {when}\n    then: [{then}]\n" for name, when, then in links)
    return f"automations:\n{items}{more}"


def test_a_circle_of_rules_is_named_as_a_chain() -> None:
    found = only_problem(
        chain(
            ("one", "{event: a.first}", "{emit: {type: b.second}}"),
            ("two", "{event: 'b.*'}", "{emit: {type: c.third}}"),
            ("three", "{sequence: [{event: x}, {event: c.third}]}", "{emit: {type: a.first}}"),
            ("beside", "{event: c.third}", "{emit: {type: d.fourth}}"),
        )
    )
    assert found.message == (
        "these rules may trigger each other without end: one → b.second → two → c.third → three → a.first → one"
    )
    assert (found.line, found.severity) == (4, "warning")


def test_a_circle_through_a_run_names_its_flow() -> None:
    run = "{run: reroute, with: {truck: a}}"
    found = only_problem(chain(("again", "{event: penstock.run.failed}", run)))
    assert found.message.endswith("without end: again → run of reroute → penstock.run.failed → again")
    assert rules(chain(("again", "{event: penstock.run.failed, where: {data.flow: x}}", run))).problems == ()


def test_a_chain_with_an_end_a_shadow_and_another_namespace_are_no_circle() -> None:
    emit = "{emit: {type: b}}"
    assert rules(chain(("one", "{event: a}", emit), ("two", "{event: b}", "{emit: {type: c}}"))).problems == ()
    assert rules(chain(("one", "{event: b}", emit), more="    shadow: true\n")).problems == ()
    other = "namespace: elsewhere\n" + chain(("two", "{event: b}", "{emit: {type: a}}"))
    assert rules(chain(("one", "{event: a}", emit)), **{"other.yaml": other}).problems == ()


def test_two_circles_are_two_warnings_and_long_chains_are_no_burden() -> None:
    links = [(f"r{n}", f"{{event: t.n{n}}}", f"{{emit: {{type: t.n{n + 1}}}}}") for n in range(2_000)]
    links += [("x", "{event: x}", "{emit: {type: x}}"), ("y", "{event: y}", "{emit: {type: y}}")]
    assert len(rules(chain(*links)).problems) == 2
