"""What is allowed and hardly ever meant: a warning, and the rule is used."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import only_problem, rule, rules

WARNINGS = [
    # text, line, column, message, hint
    (
        rule("{event: a, where: {celsius: [{numeric: ['>', 8]}]}}"),
        3,
        30,
        "`celsius` is looked for beside `data`, among the attributes of the event",
        "did you mean `data.celsius`?",
    ),
    (
        rule("{event: a, where: {$or: [{celsius: 9}, {subject: x}]}}"),
        3,
        37,
        "`celsius` is looked for beside `data`, among the attributes of the event",
        "did you mean `data.celsius`?",
    ),
    (
        rule("{event: a, within: 5m}"),
        3,
        22,
        "`within` changes nothing without `count`",
        "add e.g. `count: 3`, or remove `within`",
    ),
    (
        rule(more="    if: event.data.total + 1\n"),
        5,
        9,
        "`if` is a calculation, neither true nor false: it never holds",
        "compare it with something",
    ),
    (
        rule("{event: 'order.*'}"),
        4,
        26,
        "`r` may trigger itself: it emits `order.seen`, and waits for it",
        "choose another type",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), WARNINGS)
def test_a_rule_is_used_in_spite_of_it(text: str, line: int, column: int, message: str, hint: str) -> None:
    found = only_problem(text)
    assert (found.line, found.column, found.message, found.hint) == (line, column, message, hint)
    assert found.severity == "warning"
    assert [each.name for each in rules(text).rules] == ["r"]


@pytest.mark.parametrize(
    "when",
    [
        "{event: a, where: {actor: user/ann, source: /s, sequence: 1, data: {celsius: 1}}}",
        "{event: a, where: {data.celsius: 1}}",
        "{event: a, count: 2, within: 5m}",
        "{event: order}",
        "{event: order.see}",
    ],
)
def test_what_is_meant_is_no_warning(when: str) -> None:
    assert rules(rule(when)).problems == ()


def test_a_token_in_plain_text_is_a_warning() -> None:
    text = "channels:\n  - {name: ops, slack: {channel: '#ops', token: xoxb-1}}\n"
    found = only_problem(text)
    assert (found.line, found.severity, found.hint) == (2, "warning", "write `{{ secrets.NAME }}`")
    assert "xoxb" not in str(found)
    assert len(rules(text).channels) == 2


@pytest.mark.parametrize(
    "text",
    [
        "sensors:\n  - {name: s, driver: mqtt, url: 'mqtt://h/a@b', topics: [a], password: pw, event: {type: t}}\n",
        "webhooks:\n  - {name: w, verify: {preset: github, secret: pw}}\n",
    ],
)
def test_a_password_in_plain_text_is_a_warning(text: str) -> None:
    found = only_problem(text)
    assert (found.line, found.severity, found.hint) == (2, "warning", "write `{{ secrets.NAME }}`")
    assert "pw" not in str(found)
