"""Mistakes in `when`, and in steps that run and notify: their exact place, words and hint."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import GOOD, only_problem, rule

from penstock.automations import Problem

MISTAKES = [
    # text, line, column, message, hint
    (GOOD.replace("automations", "automatons"), 1, 1, "unknown key `automatons`", "did you mean `automations`?"),
    (rule("{evnt: a}"), 3, 12, "unknown key `evnt` in `when`", "did you mean `event`?"),
    (rule("{}"), 3, 11, "`event` is missing in `when`", "add `event: …`"),
    (rule("order.placed"), 3, 11, '`when` must be a mapping (`key: value`), not the text "order.placed"', ""),
    (rule("{event: 5}"), 3, 19, "`event` must be text, or a list of texts, not the number 5", ""),
    (rule("{event: a, count: three, within: 5m}"), 3, 29, '`count` must be a whole number, not the text "three"', ""),
    (rule("{event: a, count: 0}"), 3, 29, "`count` must be at least 1, not 0", ""),
    (rule("{event: a, count: 3}"), 3, 22, "`count: 3` needs a window", "add e.g. `within: 5m`"),
    (rule("{event: a, count: 3, within: 5}"), 3, 40, "`within`: 5 has no unit; write e.g. `5s` or `5m`", ""),
    (
        rule("{event: a, within: 5 min}"),
        3,
        30,
        "`within`: '5 min' is no duration; write e.g. `30s`, `5m`, `1h30m`, `250ms` or `1d`",
        "",
    ),
    (rule("{event: a, late: acept}"), 3, 28, '`late` cannot be the text "acept"', "did you mean `accept`?"),
    (rule("{event: a, per: sbject}"), 3, 27, "an event has no `sbject`", "did you mean `subject`?"),
    (
        rule("{event: a, per: [subject, data..x]}"),
        3,
        37,
        "`data..x` is no path",
        "write e.g. `subject` or `data.machine`",
    ),
    (
        rule("{event: a, per: Machine}"),
        3,
        27,
        "an event has no `Machine`",
        "content of an event stands under `data`: `data.Machine`",
    ),
    (
        rule("{event: a, absent: {event: b}}"),
        3,
        22,
        "`when` has both `event` and `absent`",
        "write one of them; `all`, `any` and `sequence` join several",
    ),
    (rule("{absent: {event: b}}"), 3, 12, "`absent` needs `within`", "add e.g. `within: 5m`"),
    (rule("{event: a, cooldown: 5m}"), 3, 22, "`cooldown` does not belong inside `when`", "write it beside `when`"),
    (rule("{event: a, where: {subject: [{prefx: t}]}}"), 3, 41, "unknown operator `prefx`", "did you mean `prefix`?"),
    (
        rule("{event: a, where: {subject: {prefix: t}}}"),
        3,
        40,
        "the operator `prefix` must stand in a list",
        "write `subject: [{prefix: …}]`",
    ),
    (
        rule("{event: a, where: {data: {x: null}}}"),
        3,
        40,
        "a bare null matches nothing",
        "write `[null]` for the value null, or `[{exists: false}]` for a missing field",
    ),
    (
        rule("{event: a, where: {$or: [{subject: x}]}}"),
        3,
        35,
        "`$or` needs a list of two or more patterns",
        "write e.g. `$or: [{subject: a}, {data: {level: 3}}]`",
    ),
    (rule("{event: a, where: {tpye: x}}"), 3, 30, "an event has no `tpye`", "did you mean `type`?"),
    (
        rule("{event: a, where: {type: x}}"),
        3,
        29,
        "`where` names `type`, which `event` has settled",
        "say the types in `event`",
    ),
    (rule("{event: a, where: {}}"), 3, 29, "`where` is empty", "leave it out to match every event of these types"),
    (
        rule("{event: a, where: {data.x: 1, data: {x: 2}}}"),
        3,
        41,
        "`data` is said twice, once with dots and once nested",
        "",
    ),
    (rule("{event: a, where: {data: [{numeric: ['!', 1]}]}}"), 3, 36, "numeric knows =, <, <=, > and >=, not '!'", ""),
    (rule(then="[]"), 4, 11, "`then` must not be empty", ""),
    (
        rule(then="{run: reroute}"),
        4,
        11,
        "`then` must be a list, not a mapping",
        "write each element on a line of its own, after a dash",
    ),
    (rule(then="[{rn: reroute}]"), 4, 13, "unknown action `rn`", "did you mean `run`?"),
    (
        rule(then="[{webhook: x}]"),
        4,
        13,
        "the action `webhook` is not supported yet by this version of Penstock",
        "known: run, notify, approve, emit",
    ),
    (
        rule(then="[{run: reroute, with: {truck: a}, notify: ops-slack, text: x}]"),
        4,
        45,
        "one step has two actions, `run` and `notify`",
        "write two steps",
    ),
    (rule(then="[{run: rerout}]"), 4, 18, "there is no deployment or flow `rerout`", "did you mean `reroute`?"),
    (rule(then="[{run: reroute}]"), 4, 18, "flow `reroute` needs the parameter `truck`", "add `truck: …` under `with`"),
    (
        rule(then="[{run: reroute, with: {truck: a, stps: 3}}]"),
        4,
        44,
        "flow `reroute` has no parameter `stps`",
        "did you mean `stops`?",
    ),
    (
        rule(then="[{run: reroute, with: {truck: a, stops: many}}]"),
        4,
        51,
        "parameter `stops` of flow `reroute` must be a whole number",
        "",
    ),
    (
        rule(then="[{run: reroute, with: {truck: a}, wait: started}]"),
        4,
        51,
        '`wait` cannot be the text "started"',
        "known: completed",
    ),
    (
        rule(then="[{run: reroute, with: {truck: a}, if: steps.ask.ok}]"),
        4,
        49,
        "no earlier step is named `ask`",
        "give the step a `name`",
    ),
    (rule(then="[{notify: ops-slak, text: x}]"), 4, 21, "there is no channel `ops-slak`", "did you mean `ops-slack`?"),
    (rule(then="[{notify: ops-slack}]"), 4, 12, "`text` is missing in `notify`", "add `text: …`"),
    (
        rule(then='[{notify: ops-slack, text: "{{ event.tpye }}"}]'),
        4,
        38,
        "an event has no `tpye`",
        "did you mean `type`?",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ evnt.type }}"}]'),
        4,
        38,
        "there is no variable `evnt` here",
        "did you mean `event`?",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ vars.limit }}"}]'),
        4,
        38,
        "`vars` has no `limit`",
        "define it under `vars:`",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ trigger.kye }}"}]'),
        4,
        38,
        "`trigger` has no `kye`",
        "did you mean `key`?",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ steps.ask }}"}]'),
        4,
        38,
        "no earlier step is named `ask`",
        "give the step a `name`",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ event.subject | uper }}"}]'),
        4,
        38,
        "unknown filter `uper`",
        "did you mean `upper`?",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ event.subject"}]'),
        4,
        38,
        "not a valid template: unexpected end of template, expected 'end of print statement'.",
        "",
    ),
    (
        rule(then='[{notify: ops-slack, text: "{{ secrets.X | upper }}"}]'),
        4,
        38,
        "secret `X` can only be inserted as it is",
        "write `{{ secrets.X }}`, without filters",
    ),
    (
        rule(then="[{notify: ops-slack, text: x, retry: {atempts: 3}}]"),
        4,
        49,
        "unknown key `atempts` in `retry`",
        "did you mean `attempts`?",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), MISTAKES, ids=[m[3][:60] for m in MISTAKES])
def test_a_mistake_is_told_at_its_place_with_a_remedy(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    assert only_problem(text) == Problem("rules.yaml", line, column, message, hint)
