"""Forms of `when` that are mixed up or cannot be: their exact place, words and remedy."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import only_problem, rule, rules

from penstock.automations import Problem

METRIC = "value: data.v, over: 1m, stat: avg"
MISTAKES = [
    # when, column in line 3, message, hint
    (
        "{absent: {event: b}, within: 5m, count: 2}",
        44,
        "`count` does not belong to `absent`",
        "remove it: nothing is nothing",
    ),
    ("{absent: {event: b, within: 5m}}", 31, "`within` does not belong inside `absent`", "write it beside `absent`"),
    (
        "{absent: {event: b}, within: 5m, where: {data: {x: 1}}}",
        44,
        "`where` does not belong beside `absent`",
        "write it inside: `absent: {where: …}`",
    ),
    ("{event: a, after: {event: b}}", 22, "`after` does not belong to `event`", "it needs `absent`"),
    ("{after: {event: b}, within: 5m}", 12, "`after` needs `absent`", "add e.g. `absent: {event: order.paid}`"),
    (
        "{sequence: [{event: a}, {event: b}], all: [{event: c}]}",
        48,
        "`when` has both `sequence` and `all`",
        "write one of them; `all`, `any` and `sequence` join several",
    ),
    (
        "{sequence: [{event: a}, {event: b}], count: 3}",
        48,
        "`count` does not belong to `sequence`",
        "write it at one of its triggers",
    ),
    ("{sequence: [{event: a, count: 2}]}", 34, "`count: 2` needs a window", "add e.g. `within: 5m`"),
    ("{sequence: []}", 22, "`sequence` must not be empty", ""),
    ("{sequence: [a]}", 23, 'each of `sequence` must be a mapping (`key: value`), not the text "a"', ""),
    ("{all: [{event: a}, {}]}", 30, "`event` is missing in `all`", "add `event: …`"),
    (
        "{all: [{event: a, lateness: 5m}]}",
        29,
        "`lateness` belongs to the whole rule",
        "write it in the outermost `when`",
    ),
    ("{all: [{event: a, where: {subject: [{prefx: t}]}}]}", 48, "unknown operator `prefx`", "did you mean `prefix`?"),
    ("{at_least: 3, of: [{event: a}, {event: b}]}", 12, "`at_least: 3` of 2 can never be", "write 2 or less"),
    ("{at_least: 2, within: 5m}", 22, "`at_least` needs `of`", "list them: `of: [{…}, {…}]`"),
    ("{of: [{event: a}]}", 12, "`of` needs `at_least`", "add e.g. `at_least: 2`"),
    (
        f"{{event: m, metric: {{{METRIC}, op: '>', threshold: 5, clear: 6}}}}",
        97,
        "`clear: 6` lies on the wrong side of `> 5`",
        "write 5 or a number below it",
    ),
    (
        f"{{event: m, metric: {{{METRIC}, op: '<', threshold: 5, clear: 4}}}}",
        97,
        "`clear: 4` lies on the wrong side of `< 5`",
        "write 5 or a number above it",
    ),
    (
        f"{{event: m, metric: {{{METRIC}, op: '=', threshold: 5}}}}",
        71,
        '`op` cannot be the text "="',
        "did you mean `>=`?",
    ),
    (
        f"{{event: m, metric: {{{METRIC}, op: '>', threshold: many}}}}",
        87,
        '`threshold` must be a number, not the text "many"',
        "",
    ),
    (f"{{event: m, metric: {{{METRIC}, op: '>'}}}}", 30, "`threshold` is missing in `metric`", "add `threshold: …`"),
    (
        f"{{event: m, metric: {{{METRIC}, op: '>', threshold: 5}}, for: 2m}}",
        91,
        "`for` stands inside `metric`",
        "write `metric: {…, for: 2m}`",
    ),
    (
        f"{{event: m, metric: {{{METRIC}, op: '>', threshold: 5}}, within: 2m}}",
        91,
        "`within` does not belong to `metric`",
        "its window is `over`",
    ),
    ("{event: s, changed: sbject}", 31, "an event has no `sbject`", "did you mean `subject`?"),
    (
        "{event: s, changed: data.v, from: 1, to: 1.0}",
        52,
        "nothing changes from a value to the same",
        "write two values, or only one",
    ),
    ("{event: s, for: 5m}", 22, "`for` does not belong to `event`", "it needs `changed`"),
    ("{event: s, from: 5}", 22, "`from` does not belong to `event`", "it needs `changed`"),
    ("{to: 5}", 12, "`to` needs `changed`", "add e.g. `changed: data.state`"),
    ("{schedule: {}}", 22, "`schedule` has none of `cron`, `every` and `rrule`", "write exactly one of them"),
    (
        "{schedule: {every: 5m, cron: '* * * * *'}}",
        34,
        "`schedule` has both `every` and `cron`",
        "write exactly one of them",
    ),
    ("{schedule: {every: 5m}, per: subject}", 35, "`per` does not belong to `schedule`", "remove it"),
    ("{schedule: {cron: '0 0 30 2 *'}}", 29, "this schedule is never due", "look at its dates"),
    (
        "{schedule: {every: 5m, timezone: Vienna}}",
        44,
        "`timezone`: 'Vienna' is no time zone; write e.g. `UTC` or `Europe/Vienna`",
        "",
    ),
    (
        "{schedule: {every: 5m, calendar: {except: [25.12.]}}}",
        54,
        "each of `except`: '25.12.' is no date; write e.g. `2026-12-25`",
        "",
    ),
    (
        "{schedule: {rrule: FREQ=DAILY;COUNT=3}}",
        30,
        "`rrule`: COUNT cannot be used here; it needs a start: `DTSTART:20260301T090000`,"
        " and the rule in the next line",
        "",
    ),
    ("{event: a, order: event-time}", 29, '`order` cannot be the text "event-time"', "did you mean `event_time`?"),
    ("{schedule: {every: 1ms}}", 30, "`every` must be at least 1s, not 1ms", ""),
    ("{absent: null, within: 5m}", 12, "`absent` has no value", "write one, or remove the key"),
]


@pytest.mark.parametrize(("when", "column", "message", "hint"), MISTAKES, ids=[m[0][:60] for m in MISTAKES])
def test_a_mistake_is_told_at_its_place_with_a_remedy(when: str, column: int, message: str, hint: str) -> None:
    assert only_problem(rule(when)) == Problem("rules.yaml", 3, column, message, hint)


def test_each_mistake_of_a_rule_is_told_in_one_run() -> None:
    text = rule("{sequence: [{evnt: a}, {event: b, count: 2}], within: 5 min}", more="    if: evnt == 1\n    mode: x\n")
    told = [problem.message for problem in rules(text).problems]
    assert "unknown key `evnt` in `sequence`" in told
    assert any("5 min" in each for each in told)
    assert any("`mode`" in each for each in told)
