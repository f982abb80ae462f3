"""`penstock rules test|simulate|explain|export-schema`, and `check --live`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.services.cli import main

RULE = """\
automations:
  - name: knocks
    description: Somebody is at the door
    when: {event: door.knocked, count: 2, within: 1m, per: subject}
    cooldown: 5m
    then: [{emit: {type: visitor.came}}]
    tests:
      - name: two knocks
        given: [{type: door.knocked, at: 0s}, {type: door.knocked, at: 10s}]
        expect: [{fires: knocks, at: 10s}]
"""
EVENTS = [
    {"id": f"k{number}", "source": "/d", "type": "door.knocked", "subject": "front", "time": f"2026-05-04T08:00:{at}Z"}
    for number, at in enumerate(("00", "20", "30", "40"))
]


@pytest.fixture
def penstock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a command.  Returns (exit code, what it printed, what it complained about)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", "rules", *arguments])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules" / "door.yaml"
    path.parent.mkdir()
    path.write_text(RULE)
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, EVENTS)) + "\n\n")
    return path


def test_tests_pass(penstock: Any, rules: Path) -> None:
    assert penstock("test", str(rules)) == (0, "1 passed, 0 failed\n", "")
    assert penstock("test")[:2] == (0, "1 passed, 0 failed\n"), "the folder `rules` is the default"


def test_a_test_that_fails_shows_the_difference_and_ends_with_1(penstock: Any, rules: Path) -> None:
    rules.write_text(RULE.replace("knocks, at: 10s}", "knocks, at: 12s, key: null}"))
    code, out, _ = penstock("test", "rules")
    assert code == 1
    assert out.splitlines() == [
        "rules/door.yaml:2: knocks: two knocks: failed (- expected, + got)",
        '  +      10s  fired knocks key null events ["e1","e2"]',
        "  -      12s  fired knocks key null",
        "0 passed, 1 failed",
    ]


def test_a_program_reads_the_difference_as_json(penstock: Any, rules: Path) -> None:
    rules.write_text(RULE.replace("knocks, at: 10s}", "knocks, at: 12s}"))
    code, out, _ = penstock("test", "rules", "--format", "json")
    [found] = json.loads(out)
    assert (code, found["passed"], found["automation"], found["line"]) == (1, False, "knocks", 2)
    assert [each["at"] for each in found["missing"]] == ["2026-01-05T00:00:12Z"]
    assert [each["at"] for each in found["unexpected"]] == ["2026-01-05T00:00:10Z"]


def test_rules_with_mistakes_are_not_tested(penstock: Any, rules: Path) -> None:
    rules.write_text(RULE.replace("cooldown", "cooldwn"))
    code, out, err = penstock("test", "rules")
    assert (code, out) == (1, "")
    assert "did you mean `cooldown`?" in err


def test_decisions_are_json_objects_one_a_line(penstock: Any, rules: Path, events: Path) -> None:
    code, out, err = penstock("simulate", "rules", "--events", str(events), "--format", "jsonl")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "at": "2026-05-04T08:00:20Z",
            "automation": "knocks",
            "kind": "fired",
            "key": "front",
            "events": ["k0", "k1"],
            "reason": "",
        },
        {
            "at": "2026-05-04T08:00:40Z",
            "automation": "knocks",
            "kind": "suppressed",
            "key": "front",
            "events": ["k2", "k3"],
            "reason": "throttle: cooldown of 5m",
        },
    ]


def test_decisions_as_a_table_and_events_from_standard_input(
    penstock: Any, rules: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(events.read_bytes())))
    code, out, _ = penstock("simulate", "rules", "--events", "-", "--format", "table")
    assert code == 0
    assert "throttle: cooldown of 5m" in out


def test_the_clock_runs_on_until_it_is_told_to_stop(penstock: Any, tmp_path: Path, events: Path) -> None:
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(
        "automations:\n  - name: quiet\n    when: {absent: {event: door.knocked}, within: 1m, per: subject}\n"
        "    then: [{emit: {type: house.quiet}}]\n"
    )
    assert penstock("simulate", str(quiet), "--events", str(events))[1] == ""
    code, out, _ = penstock("simulate", str(quiet), "--events", str(events), "--until", "2026-05-04T08:05:00Z")
    assert (code, json.loads(out)["at"]) == (0, "2026-05-04T08:01:40Z")


def test_modes_are_seen_when_actions_take_time(penstock: Any, tmp_path: Path, events: Path) -> None:
    single = tmp_path / "single.yaml"
    single.write_text(
        "automations:\n  - name: one\n    when: {event: door.knocked}\n    mode: single\n"
        "    then: [{emit: {type: a.b}}]\n"
    )
    command = ("simulate", str(single), "--events", str(events))
    kinds = [json.loads(line)["kind"] for line in penstock(*command, "--assume-run-time", "25s")[1].splitlines()]
    assert kinds == ["fired", "suppressed", "fired", "suppressed"]
    assert "suppressed" not in penstock(*command)[1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "object"),
        ('{"id": "1", "type": "a"}', "source"),
        ('{"id": "1", "source": "/s", "type": "a", "time": "noon"}', "RFC 3339"),
        ('{"id": "1", "source": "/s", "type": "a", "recordedtime": "noon"}', "RFC3339"),
        ("[" * 100_000, ""),
    ],
)
def test_lines_that_are_no_events_are_told_with_their_number(
    penstock: Any, rules: Path, events: Path, line: str, reason: str
) -> None:
    events.write_text(events.read_text() + line + "\n")
    code, out, err = penstock("simulate", "rules", "--events", str(events))
    assert (code, out) == (1, "")
    assert f"{events}:6: " in err
    assert reason in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--until", "noon"], "--until: 'noon' is no time"),
        (["--assume-run-time", "5"], "--assume-run-time: '5' is no duration"),
    ],
)
def test_a_wrong_option_is_one_line(penstock: Any, rules: Path, events: Path, arguments: list[str], text: str) -> None:
    code, _, err = penstock("simulate", "rules", "--events", str(events), *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert text in err


def test_an_event_without_any_time_has_no_place_on_the_clock(penstock: Any, rules: Path, events: Path) -> None:
    events.write_text('{"id": "1", "source": "/s", "type": "a"}\n')
    code, _, err = penstock("simulate", "rules", "--events", str(events))
    assert code == 1
    assert "`recordedtime`" in err


def test_a_rule_is_explained_stage_by_stage(penstock: Any, rules: Path) -> None:
    code, out, _ = penstock("explain", "knocks", "rules")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "knocks (rules/door.yaml:2): Somebody is at the door")
    assert [line.split()[0] for line in lines[1:]] == [
        "filter", "dedupe", "correlate", "window", "if", "debounce", "throttle", "mode", "act",
    ]  # fmt: skip
    [told] = json.loads(penstock("explain", "knocks", "--json")[1])
    assert told["stages"][6] == {"stage": "throttle", "effect": "drops", "text": "after a firing of a key, none for 5m"}
    code, _, err = penstock("explain", "nocks", "rules")
    assert (code, "did you mean `knocks`?" in err) == (1, True)


def test_the_exported_schema_is_one_and_takes_the_rule(penstock: Any) -> None:
    schema = json.loads(penstock("export-schema")[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    from ruamel.yaml import YAML

    jsonschema.validate(YAML(typ="safe", pure=True).load(RULE), schema)
