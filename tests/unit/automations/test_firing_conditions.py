"""`if` on steps, and the steps of `on_resolve`, in a firing."""

from __future__ import annotations

from typing import Any

from penstock.automations import Automation, Firing, advance, load_texts, start
from penstock.automations.facts import AnyCommand, AnyFact, EmitEvent, Finished, Notify, Started, StepSucceeded

NOW = 1_772_359_200_000_000
HEAD = 'channels: [{name: ops, slack: {channel: "#ops", token: "{{ secrets.T }}"}}]\nautomations:\n  - name: r\n'
METRIC = "    when: {event: m, metric: {value: data.v, over: 1m, stat: max, op: '>', threshold: 5}}\n"
EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e1", "source": "/t", "type": "m", "data": {"v": 9}}


def rule(then: str, more: str = "") -> Automation:
    (found,) = load_texts({"r.yaml": f"{HEAD}{METRIC}    then: {then}\n{more}"}).require().rules
    return found


def play(found: Automation, *facts: AnyFact, kind: str = "fired") -> tuple[Firing, list[AnyCommand]]:
    """The firing after these facts, and all commands."""
    firing = start(
        found, decision_id="d", revision=1, events=[EVENT], key=None, at=NOW, nonce="n", kind=kind, value=9.5
    )
    commands: list[AnyCommand] = []
    for fact in facts:
        firing, more = advance(firing, fact, NOW, found)
        commands += more
    return firing, commands


def emitted(commands: list[AnyCommand]) -> list[str]:
    return [command.event["type"] for command in commands if isinstance(command, EmitEvent)]


def test_a_step_whose_condition_does_not_hold_is_passed_over() -> None:
    found = rule(
        "[{emit: {type: a.a}, if: event.data.v > 5}, {name: no, emit: {type: b.b}, if: event.data.v * 1.5 > 50},"
        " {emit: {type: c.c}, if: steps.no.skipped && trigger.value == 9.5}]"
    )
    firing, commands = play(found, Started())
    assert emitted(commands) == ["a.a", "c.c"]
    assert firing.status == "completed"
    assert firing.results["1"] == {"skipped": True, "reason": "if: does not hold"}


def test_a_condition_that_cannot_be_told_passes_the_step_over_and_says_why() -> None:
    firing, commands = play(rule("[{emit: {type: a.a}, if: event.data.w > 5}]"), Started())
    assert emitted(commands) == []
    assert firing.results["0"]["reason"] == "if: `event.data.w` is missing"
    assert commands[-1] == Finished("completed")


def test_a_condition_sees_what_an_earlier_step_came_to() -> None:
    found = rule("[{name: told, notify: ops, text: x}, {emit: {type: a.a}, if: steps.told.ok}]")
    assert emitted(play(found, Started(), StepSucceeded("0", {"ok": True}))[1]) == ["a.a"]
    assert emitted(play(found, Started(), StepSucceeded("0", {"ok": False}))[1]) == []


def test_a_resolve_does_what_on_resolve_says() -> None:
    more = "    on_resolve: [{emit: {type: good.again}}, {notify: ops, text: fine}]\n"
    found = rule("[{emit: {type: went.bad}}]", more)
    firing, commands = play(found, Started(), StepSucceeded("on_resolve.1"), kind="resolved")
    assert emitted(commands) == ["good.again"]
    assert [command.text for command in commands if isinstance(command, Notify)] == ["fine"]
    assert (firing.status, commands[-1]) == ("completed", Finished("completed"))
    assert emitted(play(found, Started())[1]) == ["went.bad"]


def test_a_resolve_without_actions_is_over_at_once() -> None:
    firing, commands = play(rule("[{emit: {type: went.bad}}]"), Started(), kind="resolved")
    assert (firing.status, commands) == ("completed", [Finished("completed")])
