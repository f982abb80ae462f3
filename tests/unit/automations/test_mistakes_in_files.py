"""Mistakes in other steps, and beside rules: their exact place, words and hint."""

from __future__ import annotations

import pytest
from tests.support.rule_texts import GOOD, only_problem, rule

from penstock.automations import Problem

MISTAKES = [
    (
        rule(then="[{emit: {type: penstock.x}}]"),
        4,
        26,
        "type `penstock.x` is reserved: `penstock.*` are Penstock's own events",
        "choose another type",
    ),
    (
        rule(then='[{emit: {type: "a.{{ event.subject }}"}}]'),
        4,
        26,
        "the type of an event must be plain text, without templates and wildcards",
        "put what varies into `subject` or `data`",
    ),
    (
        rule(then='[{emit: {type: a, data: {s: "{{ secrets.X }}"}}}]'),
        4,
        39,
        "a secret cannot stand in an event, which is stored and read by many",
        "use it in `run` or `notify`",
    ),
    (
        rule(then="[{approve: {ask: ok?, approvers: [group/dispach]}}]"),
        4,
        45,
        "there is no group `dispach`",
        "did you mean `group/dispatch`?",
    ),
    (
        rule(then="[{approve: {ask: ok?, approvers: [ann]}}]"),
        4,
        45,
        '"ann" is neither a person nor a group; write `user/NAME` or `group/NAME`',
        "",
    ),
    (rule(then="[{approve: {ask: ok?, approvers: []}}]"), 4, 44, "`approvers` must not be empty", ""),
    (
        rule(then="[{approve: {ask: ok?, approvers: [user/ann], needs: 2}}]"),
        4,
        63,
        "needs 2 people, and only 1 may approve",
        "",
    ),
    (
        rule(then="[{approve: {ask: ok?, approvers: [user/ann], form: {}}}]"),
        4,
        56,
        "`form` is not supported yet by this version of Penstock",
        "remove it",
    ),
    (rule(more="    mode: singel\n"), 5, 11, '`mode` cannot be the text "singel"', "did you mean `single`?"),
    (
        rule(more="    debounce: {quiet: 5m, max: 1m}\n"),
        5,
        32,
        "`max` is shorter than `quiet`, so that it always comes first",
        "write a longer `max`, or a shorter `quiet`",
    ),
    (rule(more="    debounce: 5\n"), 5, 15, "`quiet`: 5 has no unit; write e.g. `5s` or `5m`", ""),
    (rule(more="    dedupe: {by: sbject, for: 1m}\n"), 5, 18, "an event has no `sbject`", "did you mean `subject`?"),
    (rule(more="    dedupe: {by: subject}\n"), 5, 13, "`for` is missing in `dedupe`", "add `for: …`"),
    (rule(more="    if: true\n"), 5, 9, "`if` must be text, not `true`", 'quote it: "true"'),
    (rule(more="    if: evnt.id == 'x'\n"), 5, 9, "there is no variable `evnt` here", "did you mean `event`?"),
    (rule(more="    if: event.data.x =\n"), 5, 9, "`=` at character 14 is no CEL", "write `==`"),
    (
        rule(more="    on_resolve: [{emit: {type: x.y}}]\n"),
        5,
        5,
        "this trigger never resolves; only `metric`, and `absent` without `after`, do",
        "remove `on_resolve`",
    ),
    (rule(more="    enabled: yes\n"), 5, 14, '`enabled` must be `true` or `false`, not the text "yes"', ""),
    (rule(more="    description: 5\n"), 5, 18, "`description` must be text, not the number 5", 'quote it: "5"'),
    (
        rule(more="    description: a\n    description: b\n"),
        6,
        5,
        "key `description` stands here twice, first in line 5",
        "remove or rename one of them",
    ),
    (
        rule(more="    tests: [{name: t, given: [], expect: [{fire: r}]}]\n"),
        5,
        44,
        "unknown key `fire` in `expect`",
        "did you mean `fires`?",
    ),
    (
        rule().replace("name: r", "name: my rule"),
        2,
        11,
        '"my rule" is no name: letters, digits and dashes only (`cold-chain`)',
        "",
    ),
    (
        GOOD + GOOD.replace("automations:\n", ""),
        5,
        11,
        "automation `good` is defined twice",
        "the first one stands at rules.yaml:2; rename one",
    ),
    (
        "automations: {name: r}\n",
        1,
        14,
        "`automations` must be a list, not a mapping",
        "begin each element with a dash",
    ),
    ("- name: r\n", 1, 1, "a rule file is a mapping, not a list", "begin with `automations:`"),
    ("automations:\n\t- name: r\n", 2, 1, "a tab where YAML allows only spaces", "indent with spaces"),
    (
        "a: b: c\n",
        1,
        5,
        "not valid YAML: mapping values are not allowed here",
        "check indentation, quotes and brackets here",
    ),
    ("vars: {my-var: 1}\n", 1, 8, '"my-var" cannot be named in a template: letters, digits and _ only', ""),
    ("defaults: {retries: 3}\n", 1, 12, "unknown key `retries`", "did you mean `retry`?"),
    ("groups: [{name: g, members: [user/anna]}]\n", 1, 30, "there is no user `anna`", "did you mean `user/ann`?"),
    ("channels: [{name: c, slck: {}}]\n", 1, 22, "unknown key `slck`", "did you mean `slack`?"),
    ("channels: [{name: c}]\n", 1, 19, "`c` has neither `slack` nor `sms`", "write exactly one of them"),
    (
        "channels: [{name: c, rate: fast, slack: {channel: a, token: b}}]\n",
        1,
        28,
        "`rate`: 'fast' is no rate; write e.g. `10/1s`, `100/1m` or `unlimited`",
        "",
    ),
    (
        "webhooks: [{name: w, verify: {preset: githb, secret: a}}]\n",
        1,
        39,
        "unknown preset `githb`",
        "did you mean `github`?",
    ),
    (
        "webhooks: [{name: w, verify: {preset: stripe, secret: a}}]\n",
        1,
        39,
        "preset `stripe` is not supported yet by this version of Penstock",
        "known: github, hmac",
    ),
    (
        'webhooks: [{name: w, verify: {preset: github, secret: "{{ secret.X }}"}}]\n',
        1,
        55,
        "there is no variable `secret` in settings",
        "did you mean `secrets`?",
    ),
    (
        'webhooks: [{name: w, verify: {preset: github, secret: a}, event: {type: t, data: {a: [1, "{{ bdy }}"]}}}]\n',
        1,
        90,
        "there is no variable `bdy` in the `event` of a webhook",
        "did you mean `body`?",
    ),
    ("sensors: [{name: s, driver: hst}]\n", 1, 29, "unknown driver `hst`", "did you mean `host`?"),
    ("sensors: [{name: s}]\n", 1, 11, "`driver` is missing", "add `driver:` with one of host, mqtt"),
    (
        "sensors: [{name: s, driver: mqtt, url: 'mqtt://u:pw@h:1/', topics: [a], event: {type: t}}]\n",
        1,
        40,
        "a user or password stands in this URL for everybody to read",
        "write `username:` and `password:` beside `url`, as `{{ secrets.NAME }}`",
    ),
    (
        "channels: [{name: c, slack: {channel: x, token: '{{ secrets.T }}'}, base_url: 'https://pw@h/a'}]\n",
        1,
        79,
        "a user or password stands in this URL for everybody to read",
        "remove it; the channel is known by its `token`",
    ),
    (
        "schedules: [{name: s, every: 5s, cron: '0 3 * * *'}]\n",
        1,
        34,
        "`s` has both `every` and `cron`",
        "write exactly one of them",
    ),
    (
        "schedules: [{name: s, cron: '0 25 * * *'}]\n",
        1,
        29,
        "`cron`: '25' is no hour of a cron line; write * or 0-23, a range, a list or */n",
        "",
    ),
    (
        "schedules: [{name: s, every: 5s, timezone: Mars}]\n",
        1,
        44,
        "`timezone`: 'Mars' is no time zone; write e.g. `UTC` or `Europe/Vienna`",
        "",
    ),
    ("limits: [{name: l, slots: 4}]\n", 1, 20, "`slots` is not supported yet by this version of Penstock", "remove it"),
    (
        "limits: [{name: l, rate: unlimited}]\n",
        1,
        26,
        "`rate`: a limit without a limit; write e.g. `10/1s`, or remove it",
        "",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), MISTAKES, ids=[m[3][:60] for m in MISTAKES])
def test_a_mistake_is_told_at_its_place_with_a_remedy(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    assert only_problem(text) == Problem("rules.yaml", line, column, message, hint)
