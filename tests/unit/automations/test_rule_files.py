"""Every kind of mistake in a rule file: its exact place, its words, its hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.automations import Problem, RuleFilesError, RuleSet, load, load_texts

FLOWS: dict[str, dict[str, Any]] = {
    "reroute": {"properties": {"truck": {"type": "string"}, "stops": {"type": "integer"}}, "required": ["truck"]}
}
PEOPLE = """\
users: [{name: ann}]
groups: [{name: dispatch, members: [user/ann]}]
channels: [{name: ops-slack, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}}]
"""
GOOD = """\
automations:
  - name: good
    when: {event: order.placed}
    then: [{emit: {type: order.seen}}]
"""


def rules(text: str, **more: str) -> RuleSet:
    return load_texts({"rules.yaml": text, "people.yaml": PEOPLE, **more}, flows=FLOWS)


def only_problem(text: str, **more: str) -> Problem:
    found = rules(text, **more).problems
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def rule(when: str = "{event: order.placed}", then: str = "[{emit: {type: order.seen}}]", more: str = "") -> str:
    return f"automations:\n  - name: r\n    when: {when}\n    then: {then}\n{more}"


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
        "`absent` is not supported yet by this version of Penstock",
        "remove it",
    ),
    (rule("{absent: {event: b}}"), 3, 12, "`absent` is not supported yet by this version of Penstock", "remove it"),
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
    (rule(then="[{run: rerout}]"), 4, 18, "there is no flow `rerout`", "did you mean `reroute`?"),
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
        rule(then="[{run: reroute, with: {truck: a}, if: x}]"),
        4,
        45,
        "`if` is not supported yet by this version of Penstock",
        "remove it",
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
    (rule(more="    cooldown: 5m\n"), 5, 5, "`cooldown` is not supported yet by this version of Penstock", "remove it"),
    (rule(more="    mode: single\n"), 5, 5, "`mode` is not supported yet by this version of Penstock", "remove it"),
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


def test_a_problem_reads_as_compilers_write_them() -> None:
    assert (
        str(only_problem(rule("{evnt: a}"))) == "rules.yaml:3:12: unknown key `evnt` in `when` (did you mean `event`?)"
    )


def test_all_mistakes_of_all_files_are_told_at_once_in_order() -> None:
    found = rules(
        rule("{evnt: a}", "[{rn: x}, {notify: ops-slak, text: '{{ evnt }}'}]"), **{"also.yaml": "automatons: []\n"}
    )
    assert [(problem.file, problem.line, problem.column) for problem in found.problems] == [
        ("also.yaml", 1, 1),
        ("rules.yaml", 3, 12),
        ("rules.yaml", 4, 13),
        ("rules.yaml", 4, 30),
        ("rules.yaml", 4, 46),
    ]


def test_a_misspelt_key_does_not_hide_what_is_wrong_beside_it() -> None:
    found = rules(rule("{event: a, cont: 3, per: sbject}", "[{run: rerout, wth: {}}]"))
    assert [problem.message for problem in found.problems] == [
        "unknown key `cont` in `when`",
        "an event has no `sbject`",
        "there is no flow `rerout`",
        "unknown key `wth` in `run`",
    ]


def test_a_broken_rule_leaves_the_good_ones_usable() -> None:
    found = rules(rule("{evnt: a}"), **{"good.yaml": GOOD, "broken.yaml": "a: [\n"})
    assert [each.name for each in found.rules] == ["good"]
    assert [problem.file for problem in found.problems] == ["broken.yaml", "rules.yaml"]


def test_a_rule_with_a_key_twice_is_not_used() -> None:
    assert rules(rule(more="    shadow: true\n    shadow: false\n")).rules == ()


def test_of_two_rules_of_one_name_neither_hides_the_mistakes_of_the_other() -> None:
    found = rules(GOOD, **{"zwei.yaml": GOOD.replace("placed", "placed, coutn: 3")})
    assert [(problem.file, problem.message) for problem in found.problems] == [
        ("zwei.yaml", "automation `good` is defined twice"),
        ("zwei.yaml", "unknown key `coutn` in `when`"),
    ]
    assert [each.file for each in found.rules] == ["rules.yaml"]


def test_the_same_name_in_two_namespaces_is_two_rules() -> None:
    found = rules(GOOD, **{"other.yaml": "namespace: plant-2\n" + GOOD})
    assert found.problems == ()
    assert sorted(each.key for each in found.rules) == [("default", "good"), ("plant-2", "good")]


def test_a_channel_of_another_namespace_is_unknown() -> None:
    text = "namespace: plant-2\n" + rule(then="[{notify: ops-slack, text: x}]")
    assert only_problem(text).message == "there is no channel `ops-slack`"


def test_without_a_registry_of_flows_a_run_is_a_warning_and_the_rule_is_used() -> None:
    found = load_texts({"rules.yaml": rule(then="[{run: anything}]")})
    assert [str(problem) for problem in found.problems] == [
        "rules.yaml:4:18: warning: flow `anything` could not be checked, since no flows are known here"
        " (deploy it, or start a worker)"
    ]
    assert (found.errors, len(found.rules)) == ((), 1)


def test_a_template_may_stand_for_a_parameter_of_any_kind() -> None:
    assert rules(rule(then='[{run: reroute, with: {truck: a, stops: "{{ event.data.n }}"}}]')).problems == ()


def test_require_raises_with_every_error_and_lets_warnings_pass() -> None:
    with pytest.raises(RuleFilesError, match=r"rules\.yaml:3:12: unknown key `evnt`"):
        rules(rule("{evnt: a}")).require()
    assert len(load_texts({"rules.yaml": rule(then="[{run: anything}]")}).require().rules) == 1


def test_a_directory_is_searched_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rules.yml").write_text(GOOD)
    (tmp_path / ".hidden.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    found = load([tmp_path], flows={})
    assert [(each.name, each.file, each.line) for each in found.rules] == [
        ("good", str(tmp_path / "deep" / "rules.yml"), 2)
    ]
    assert found.problems == ()


def test_what_cannot_be_read_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4\n")
    found = load([tmp_path, tmp_path / "missing.yaml"])
    assert [problem.message for problem in found.problems] == [
        "is not UTF-8 text",
        "cannot be read: No such file or directory",
    ]


def test_a_directory_without_rule_files_is_a_warning(tmp_path: Path) -> None:
    (problem,) = load(tmp_path).problems
    assert (problem.message, problem.severity) == ("no rule files in this directory", "warning")


def test_an_empty_file_says_nothing_and_is_fine() -> None:
    assert load_texts({"empty.yaml": "# only a comment\n"}).problems == ()


def test_the_order_of_the_texts_says_nothing() -> None:
    texts = {"b.yaml": GOOD, "a.yaml": PEOPLE, "c.yaml": rule()}
    assert [each.name for each in load_texts(texts).rules] == [
        each.name for each in load_texts(dict(reversed(texts.items()))).rules
    ]
