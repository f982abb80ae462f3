"""`tests:` of rules and `rules explain`: what is compared, how a difference is told, what each stage says."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import only_problem, rule, rules

from penstock.automations import ExampleOutcome, pipeline, run_examples

FAILED = "{event: login.failed, count: 2, within: 1m, per: subject}"


def outcome(given: str, expect: str, when: str = FAILED, more: str = "") -> ExampleOutcome:
    tests = f"    tests: [{{name: t, given: {given}, expect: {expect}}}]\n"
    (found,) = run_examples(rules(rule(when, more=more + tests)).require().rules)
    return found


TWICE = "[{type: login.failed, subject: ann, at: 0s}, {type: login.failed, subject: ann, at: 30s}]"


@pytest.mark.parametrize(
    "expect",
    [
        "[{fires: r}]",
        "[{fires: r, at: 30s}]",
        "[{fires: r, at: '2026-01-05T00:00:30Z', key: ann, events: [e2, e1]}]",
        "[{fires: r, at: 30s, reason: ''}]",
    ],
)
def test_a_test_passes_when_everything_comes_out(expect: str) -> None:
    assert outcome(TWICE, expect).passed


@pytest.mark.parametrize(
    ("expect", "lines"),
    [
        (
            "[]",
            ['+      30s  fired r key "ann" events ["e1","e2"]'],
        ),
        (
            "[{fires: r, at: 31s, key: ann}]",
            ['+      30s  fired r key "ann" events ["e1","e2"]', '-      31s  fired r key "ann"'],
        ),
        (
            "[{fires: r, key: null}, {fires: r, at: 30s}]",
            ['       30s  fired r key "ann" events ["e1","e2"]', "- any time  fired r key null"],
        ),
        (
            "[{resolves: r}, {fires: r}]",
            ['       30s  fired r key "ann" events ["e1","e2"]', "- any time  resolved r"],
        ),
    ],
)
def test_a_difference_is_told_line_by_line_in_order_of_time(expect: str, lines: list[str]) -> None:
    found = outcome(TWICE, expect)
    assert not found.passed
    assert [str(line) for line in found.lines] == lines


def test_an_expectation_that_says_little_leaves_the_decision_that_another_needs() -> None:
    twice = "[{type: a, at: 0s}, {type: a, at: 5s}]"
    assert outcome(twice, "[{fires: r}, {fires: r, at: 0s}]", "{event: a}").passed


def test_suppressed_decisions_are_compared_only_where_one_is_expected() -> None:
    twice = "[{type: a, at: 0s}, {type: a, at: 5s}]"
    cooldown = "    cooldown: 1m\n"
    assert outcome(twice, "[{fires: r, at: 0s}]", "{event: a}", cooldown).passed
    throttled = "{suppresses: r, at: 5s, reason: throttle}"
    assert outcome(twice, f"[{{fires: r, at: 0s}}, {throttled}]", "{event: a}", cooldown).passed
    assert not outcome(twice, f"[{throttled}]", "{event: a}", cooldown).passed


def test_the_clock_runs_on_to_the_last_expectation_and_until_the_test_says() -> None:
    when = "{absent: {event: a}, within: 1m}"
    assert outcome("[{type: a, at: 0s}]", "[{fires: r, at: 60s}]", when).passed
    assert outcome("[{type: a, at: 0s}]", "[]", when).passed
    assert not outcome("[{type: a, at: 0s}]", "[], until: 2m", when).passed


def test_an_event_can_be_recorded_later_than_it_happened() -> None:
    late = "[{type: login.failed, at: 0s, recorded: 5m}, {type: login.failed, at: 10s, recorded: 5m}]"
    assert outcome(late, "[]").passed


@pytest.mark.parametrize(
    ("test", "message", "hint"),
    [
        ("given: [{type: a, at: 5}], expect: []", "`at` must be text, not the number 5", 'quote it: "5"'),
        ("given: [{type: a, at: soon}], expect: []", "'soon' is no duration", ""),
        ("given: [{type: a, at: '2026-13-01T00:00:00Z'}], expect: []", "'2026-13-01T00:00:00Z' is no time", ""),
        ("given: [{type: a, subjct: x}], expect: []", "an event has no `subjct`", "did you mean `subject`?"),
        ("given: [{type: a, subject: 5}], expect: []", "this is no event: subject", ""),
        ("given: [{type: a}], expect: [{fires: q}]", "there is no rule `q`", "known: r"),
        ("given: [{type: a}], expect: [{at: 5s}]", "an expectation names no rule", "write e.g. `fires: NAME`"),
        ("given: [{type: a}], expect: [{fires: r, resolves: r}]", "an expectation names two rules", "write e.g."),
        ("given: [{type: a}], expect: [], until: never", "'never' is no duration", ""),
    ],
)
def test_a_mistake_in_a_test_is_told_by_check(test: str, message: str, hint: str) -> None:
    found = only_problem(rule(more=f"    tests: [{{name: t, {test}}}]\n"))
    assert found.line == 5
    assert found.message.startswith(message)
    assert found.hint.startswith(hint)


def test_a_pipeline_tells_each_stage_with_its_values() -> None:
    more = "    dedupe: {by: data.no, for: 1h}\n    if: event.data.x > 1\n    debounce: {quiet: 5s, max: 1m}\n"
    more += "    limit: 10/1h\n    mode: queued\n"
    (found,) = rules(rule("{event: a, count: 3, within: 5m, per: subject}", more=more)).rules
    assert [(stage.name, stage.effect) for stage in pipeline(found)] == [
        ("filter", "drops"), ("dedupe", "drops"), ("correlate", "passes"), ("window", "merges"), ("if", "drops"),
        ("debounce", "merges"), ("throttle", "drops"), ("mode", "delays"), ("act", "passes"),
    ]  # fmt: skip
    text = "\n".join(stage.text for stage in pipeline(found))
    for part in (
        "`a`",
        "1h before, by `data.no`",
        "`subject`",
        "3 events within 5m",
        "event.data.x > 1",
        "5s",
        "1m",
        "10",
    ):
        assert part in text


def test_a_filter_says_whether_there_is_a_where() -> None:
    for where, text in (
        ("", "of type `a` or `b.*`"),
        (", where: {subject: x}", "of type `a` or `b.*` that match `where`"),
    ):
        (found,) = rules(rule(f"{{event: [a, b.*]{where}}}", then="[{emit: {type: x.y}}]")).rules
        assert pipeline(found)[0].text == f"looks only at events {text}"


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ("{event: a}", "fires at each event"),
        ("{absent: {event: a}, within: 1m}", "when none came for 1m, once per silence"),
        ("{absent: {event: a}, after: {event: b}, within: 1m, grace: 5s}", "waits 5s longer for what comes late"),
        ("{sequence: [{event: a}, {event: b}], within: 1h}", "when these fired in order within 1h: (at each event)"),
        ("{at_least: 2, of: [{event: a}, {event: b}, {event: c}]}", "when 2 of 3 fired"),
        ("{event: a, changed: data.v, to: null, for: 1m}", "when `data.v` changes to null and stays so for 1m"),
        ("{event: a, order: event_time}", "held back for 30s and taken in order of event time"),
        ("{schedule: {every: 1h}}", "at each due time"),
        (
            "{metric: {value: data.v, over: 1h, stat: avg, op: '>', threshold: 5, for: 2m, clear: 3}}",
            "when the avg of `data.v` over 1h is > 5 for 2m; resolves strictly past 3",
        ),
    ],
)
def test_each_form_is_told_in_words(when: str, text: str) -> None:
    (found,) = rules(rule(when, then="[{emit: {type: x.y}}]")).rules
    assert text in next(stage.text for stage in pipeline(found) if stage.name == "window")
