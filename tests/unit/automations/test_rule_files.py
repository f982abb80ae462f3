"""Rule files as a whole: all mistakes at once, the valid rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.rule_texts import GOOD, PEOPLE, only_problem, rule, rules

from penstock.automations import RuleFilesError, load, load_texts


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
        "there is no deployment or flow `rerout`",
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


def test_an_empty_file_is_a_warning() -> None:
    (problem,) = load_texts({"empty.yaml": "# only a comment\n"}).problems
    assert (problem.message, problem.severity) == ("is empty", "warning")


def test_the_order_of_the_texts_says_nothing() -> None:
    texts = {"b.yaml": GOOD, "a.yaml": PEOPLE, "c.yaml": rule()}
    assert [each.name for each in load_texts(texts).rules] == [
        each.name for each in load_texts(dict(reversed(texts.items()))).rules
    ]
