"""The command line: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.approvals_rows import ask
from tests.support.command_line import Running

from penstock.events.bus import EVENTS, Outgoing
from penstock.services.cli.client import CommandError, find_instance
from penstock.services.cli.output import plain
from penstock.services.database import tables
from penstock.services.dead_letters import Origin, dead_letter

RULE = "automations:\n  - name: one\n    when: {event: order.placed}\n    then: [{emit: {type: order.seen}}]\n"


def test_an_event_is_emitted_and_its_id_printed(running: Running, penstock: Any) -> None:
    code, out, _ = penstock("emit", "order.placed", "--subject", "order/7", "--data", '{"n": 1}', "--id", "e1")
    assert (code, out) == (0, "e1\n")
    [record] = running.bus.records(EVENTS)
    event = json.loads(record.value)
    assert (event["type"], event["subject"], event["data"]) == ("order.placed", "order/7", {"n": 1})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["order.placed", "--data", "{n: 1}"], "--data is not JSON"),
        (["order.placed", "--time", "yesterday"], "RFC 3339"),
        (["penstock.run.failed"], "reserved"),
        (["sensor temperature"], "'sensor.temperature'"),
        ([" "], "white space"),
    ],
)
def test_what_cannot_be_emitted_is_one_line_on_stderr(
    running: Running, penstock: Any, arguments: list[str], text: str
) -> None:
    code, out, err = penstock("emit", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert text in err


def test_json_that_the_shell_has_cut_up_is_told_as_that(penstock: Any) -> None:
    code, _, err = penstock("emit", "order.placed", "--data", "{celsius:", "9}")
    assert code == 2
    assert """--data '{"celsius": 9}'""" in err


@pytest.mark.parametrize(
    ("arguments", "known"),
    [(["runs", "list", "--state"], "'timed_out'"), (["approvals", "list", "--status"], "'void'")],
)
def test_an_unknown_state_is_refused_with_the_known_ones(
    running: Running, penstock: Any, arguments: list[str], known: str
) -> None:
    code, _, err = penstock(*arguments, "foo")
    assert (code, err.count("\n")) == (1, 1)
    assert known in err
    assert "'foo'" in err


def test_the_older_name_of_the_api_url_still_works(
    running: Running, penstock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_API_URL")
    monkeypatch.setenv("PENSTOCK_URL", running.api.url)
    assert penstock("runs", "list")[:2] == (0, "no runs\n")


def test_wrong_use_ends_with_two(penstock: Any) -> None:
    assert penstock("emit")[0] == 2
    assert penstock("runs", "shwo")[0] == 2
    assert penstock("nonsense")[0] == 2


def test_without_an_instance_one_line_says_what_to_do(
    penstock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = penstock("runs", "list")
    assert (code, err.count("\n")) == (1, 1)
    assert "penstock up" in err


def test_an_instance_that_has_ended_is_told_in_one_line(
    penstock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock" / "owner.key").write_text("pk_x_y")
    (tmp_path / ".penstock" / "instance.json").write_text('{"url": "http://127.0.0.1:9", "key_file": "owner.key"}')
    assert find_instance().key == "pk_x_y"
    code, _, err = penstock("approvals", "list")
    assert (code, err.count("\n")) == (1, 1)
    assert "is `penstock up` running" in err
    (tmp_path / ".penstock" / "instance.json").write_text("{")
    with pytest.raises(CommandError, match="cannot be used"):
        find_instance()


def test_a_wrong_key_is_told(running: Running, penstock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "pk_wrong_key")
    code, _, err = penstock("runs", "list")
    assert (code, err.count("\n")) == (1, 1)
    assert "not known here" in err


def test_approvals_are_listed_approved_and_told_when_late(running: Running, penstock: Any) -> None:
    assert penstock("approvals", "list")[1] == "nothing waits for a decision\n"
    running.do(ask(running.api.context.database, approvers=("user/owner",)))
    assert "Reroute truck/7?" in penstock("approvals", "list")[1]
    assert json.loads(penstock("approvals", "list", "--json")[1])[0]["id"] == "a1"
    code, out, _ = penstock("approvals", "approve", "a1", "--comment", "go")
    assert (code, out.splitlines()[0]) == (0, "a1: Reroute truck/7?")
    assert out.splitlines()[1].startswith("a1: approved")
    code, _, err = penstock("approvals", "reject", "a1")
    assert code == 1
    assert "already approved by user/owner" in err
    assert "nothing was changed" in err
    found = json.loads(penstock("approvals", "list", "--status", "all", "--json")[1])[0]
    assert (found["votes"][0]["channel"], found["votes"][0]["comment"]) == ("cli", "go")
    assert penstock("approvals", "approve", "none")[0] == 1


def test_a_form_is_filled_in_field_by_field(running: Running, penstock: Any) -> None:
    form = {"type": "object", "properties": {"amount": {"type": "integer"}, "note": {"type": "string"}}}
    running.do(ask(running.api.context.database, approvers=("user/owner",), form=form | {"required": ["amount"]}))
    assert "amount: it is missing" in penstock("approvals", "approve", "a1")[2]
    assert "write NAME=VALUE" in penstock("approvals", "approve", "a1", "--form", "amount")[2]
    assert "not of type 'integer'" in penstock("approvals", "approve", "a1", "--form", "amount=lots")[2]
    assert penstock("approvals", "approve", "a1", "--form", "amount=3", "--form", "note=a=b")[0] == 0
    found = json.loads(penstock("approvals", "show", "a1")[1])
    assert found["votes"][0]["form"] == {"amount": 3, "note": "a=b"}


def test_a_vote_carries_what_was_seen(running: Running, penstock: Any) -> None:
    running.do(ask(running.api.context.database, approvers=("user/owner",)))
    seen = json.loads(penstock("approvals", "show", "a1")[1])["shown"]
    assert seen
    code, _, err = penstock("approvals", "approve", "a1", "--shown", "another")
    assert (code, "what you saw is not what is asked now" in err) == (1, True)
    assert json.loads(penstock("approvals", "show", "a1")[1])["status"] == "pending"
    code, out, _ = penstock("approvals", "approve", "a1", "--shown", seen)
    assert (code, out.startswith("a1: approved")) == (0, True)


async def _insert(running: Running, table: sa.Table, **row: Any) -> None:
    async with running.api.context.database.begin() as connection:
        await connection.execute(sa.insert(table).values(**row))


def test_runs_are_listed_and_shown_with_their_log(running: Running, penstock: Any) -> None:
    row = {"flow": "reroute", "state": "completed", "parameters": '{"truck": 7}', "created": 5_000_000}
    running.do(_insert(running, tables.run, id="r1", **row))
    running.do(_insert(running, tables.run_log, run_id="r1", at=1_000_000, level="info", line="turning\x1b[2J left"))
    running.do(_insert(running, tables.run, id="r2", **row))
    assert penstock("runs", "logs", "r2")[1] == "run r2 has logged nothing\n"
    assert penstock("runs", "logs", "r2", "--json")[1] == "[]\n"
    assert "reroute" in penstock("runs", "list")[1]
    assert json.loads(penstock("runs", "list", "--json")[1])[0]["parameters"] == {"truck": 7}
    assert "truck" in penstock("runs", "show", "r1")[1]
    logs = penstock("runs", "logs", "r1")[1]
    assert "turning�[2J left" in logs
    assert penstock("runs", "show", "none")[0] == 1


def test_dead_letters_are_listed_shown_and_redriven(running: Running, penstock: Any) -> None:
    assert penstock("dlq", "list")[1] == "no dead letters\n"
    running.do(running.bus.append(dead_letter("no JSON", Origin(EVENTS, 0, 3), value=b"{")))
    [letter] = json.loads(penstock("dlq", "list", "--json")[1])
    assert "no JSON" in penstock("dlq", "list")[1]
    assert json.loads(penstock("dlq", "show", letter["id"])[1])["value"] == {"text": "{"}
    assert penstock("dlq", "redrive", letter["id"])[:2] == (0, "the record is back on its topic\n")
    running.do(running.bus.append(dead_letter("a body", Origin(EVENTS, 0, 4), value=b"[")))
    [line] = [each for each in penstock("dlq", "list", "--limit", "1")[1].splitlines() if "--before" in each]
    older = penstock(*line.removeprefix("older ones: penstock ").split())[1]
    assert letter["id"] in older
    assert "--before" not in older
    assert "newest" in penstock("dlq", "list", "--help")[1]
    code, _, err = penstock("dlq", "redrive", "none")
    assert (code, err.count("\n")) == (1, 1)


def test_the_tail_prints_events_from_the_beginning(running: Running, penstock: Any) -> None:
    for number in range(3):
        event = {"specversion": "1.0", "id": str(number), "source": "/s", "type": f"order.n{number}"}
        running.do(running.bus.append(Outgoing(EVENTS, msgspec.json.encode(event), b"k")))
    arguments = ["events", "tail", "--from-beginning", "--count", "1", "--type", "order.n2"]
    assert "order.n2" in penstock(*arguments)[1]
    assert json.loads(penstock(*arguments, "--json")[1])["id"] == "2"


def test_rules_are_checked_offline_with_all_their_mistakes(penstock: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE)
    assert penstock("rules", "check", str(tmp_path)) == (0, "1 rule, nothing wrong\n", "")
    (tmp_path / "b.yaml").write_text(RULE.replace("when", "wehn").replace("one", "two"))
    (tmp_path / "c.yaml").write_text(RULE)
    code, _, err = penstock("rules", "check", str(tmp_path))
    assert code == 1
    assert "b.yaml:3:" in err
    assert "`when`" in err
    assert "c.yaml:2:" in err
    assert penstock("rules", "check", str(tmp_path / "none"))[0] == 1


def test_a_check_that_found_no_rules_says_so(penstock: Any, tmp_path: Path) -> None:
    code, out, err = penstock("rules", "check", str(tmp_path))
    assert (code, out) == (0, "0 rules, no errors, 1 warning\n")
    assert "no rule files in this directory" in err
    (tmp_path / "a.yaml").write_text("")
    code, out, err = penstock("rules", "check", str(tmp_path / "a.yaml"))
    assert (code, out) == (0, "0 rules, no errors, 1 warning\n")
    assert "a.yaml:1:1: warning: is empty" in err


def test_rules_are_checked_against_the_flows_of_a_module(penstock: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE.replace("emit: {type: order.seen}", "run: rerout"))
    (tmp_path / "my_flows.py").write_text(
        "from penstock.flows import flow\n\n\n@flow\ndef reroute() -> None:\n    pass\n"
    )
    assert penstock("rules", "check", str(tmp_path))[0] == 0
    code, _, err = penstock("rules", "check", str(tmp_path), "--flows", str(tmp_path / "my_flows.py"))
    assert code == 1
    assert "did you mean `reroute`" in err


def test_rules_are_applied_through_the_api(running: Running, penstock: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE)
    assert penstock("rules", "apply", str(tmp_path))[:2] == (0, "revision 1 is in force\n")
    assert "already" in penstock("rules", "apply", str(tmp_path))[1]
    (tmp_path / "a.yaml").write_text(RULE.replace("when", "wehn"))
    code, _, err = penstock("rules", "apply", str(tmp_path))
    assert code == 1
    assert str(tmp_path / "a.yaml") + ":3:" in err


def test_a_sign_in_link_is_printed(running: Running, penstock: Any) -> None:
    assert penstock("sign-in")[1].startswith(f"{running.api.url}/sign-in?token=")


def test_text_from_outside_does_not_steer_the_terminal() -> None:
    assert plain("a\x1b[31m\nb\u202ec") == "a�[31m⏎b�c"


def test_the_help_is_fast_because_it_loads_no_room() -> None:
    code = (
        "import sys, penstock.services.cli as cli; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(cli.app, ['--help']).exit_code == 0;"
        "print([name for name in ('fastapi', 'sqlalchemy', 'httpx', 'aiokafka') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ})
    assert done.stdout == "[]\n"
