"""The step cursor: what each fact leads to, and that a repeated or stale one leads to nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import HOP_BUDGET, Automation, Firing, Step, advance, load_texts, start
from penstock.automations.facts import (
    AnyCommand,
    AnyFact,
    ApprovalDecided,
    DeadLetter,
    EmitEvent,
    Finished,
    Notify,
    RequestApproval,
    RunEnded,
    SetTimer,
    Started,
    StartRun,
    StepFailed,
    StepSucceeded,
    TimerDue,
)
from penstock.events.event import from_mapping

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

NOW = 1_772_359_200_000_000  # 2026-03-01T10:00:00Z
SECOND = 1_000_000
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/t",
    "type": "sensor.temperature",
    "subject": "truck/7",
    "data": {"celsius": 9},
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
CHANNELS = 'channels: [{name: ops, slack: {channel: "#ops", token: t}}]\nusers: [{name: ann}]\n'
STEPS = {
    "approve": '- {name: ask, approve: {ask: "Reroute {{ event.subject }}?", approvers: [user/ann], timeout: 30m}}',
    "run": '- {name: go, run: reroute, with: {truck: "{{ event.subject }}", celsius: "{{ event.data.celsius }}"}}',
    "wait": "- {name: whole, run: reroute, wait: completed, timeout: 1h}",
    "notify": '- {notify: ops, title: "{{ trigger.automation }}", text: "{{ event.subject }}: {{ trigger.key }}"}',
    "emit": '- {emit: {type: truck.warm, subject: "{{ event.subject }}", data: {c: "{{ event.data.celsius }}"}}}',
    "broken": '- {notify: ops, text: "{{ event.data.missing }}"}',
    "secret": '- {run: reroute, with: {token: "Bearer {{ secrets.API }}"}}',
}


@cache
def automation(*steps: str, on_error: tuple[str, ...] = ()) -> Automation:
    then = "".join(f"      {STEPS.get(step, step)}\n" for step in steps)
    rescue = "    on_error:\n" + "".join(f"      {STEPS.get(step, step)}\n" for step in on_error) if on_error else ""
    head = "automations:\n  - name: cold-chain\n    when: {event: sensor.temperature}\n    then:\n"
    text = f"{head}{then}{rescue}{CHANNELS}"
    (rule,) = load_texts({"r.yaml": text}).require().rules
    return rule


def firing_of(rule: Automation, event: dict[str, Any] | None = EVENT) -> Firing:
    events = [event] if event else []
    return start(rule, decision_id="d1", revision=1, events=events, key="truck/7", at=NOW, nonce="n0nce")


def play(rule: Automation, *facts: AnyFact, event: dict[str, Any] | None = EVENT) -> tuple[Firing, list[AnyCommand]]:
    """The firing after these facts, and the commands of the last one."""
    firing = firing_of(rule, event)
    commands: list[AnyCommand] = []
    for fact in facts:
        firing, commands = advance(firing, fact, NOW, rule)
    return firing, commands


def test_a_run_is_asked_for_with_its_parameters_in_their_json_kind() -> None:
    firing, (command,) = play(automation("run"), Started())
    assert isinstance(command, StartRun)
    assert command.parameters == {"truck": "truck/7", "celsius": 9}
    assert (command.flow, command.hops, command.correlationid, command.causationid) == ("reroute", 1, "e1", "e1")
    assert command.traceparent == EVENT["traceparent"]
    assert (firing.status, firing.cursor) == ("running", "0")


def test_a_run_is_done_when_it_is_accepted_and_its_result_serves_the_next_step() -> None:
    rule = automation("run", '- {notify: ops, text: "run {{ steps.go.run_id }}"}')
    firing, (command,) = play(rule, Started(), StepSucceeded("0", {"run_id": "r1"}))
    assert isinstance(command, Notify)
    assert (command.text, firing.cursor) == ("run r1", "1")


def test_a_run_that_is_waited_for_is_done_when_it_has_ended() -> None:
    rule = automation("wait", '- {notify: ops, text: "{{ steps.whole.result.km }} {{ steps.whole.run_id }}"}')
    asked = play(rule, Started())[1][0]
    firing, commands = play(rule, Started(), StepSucceeded("0", {"run_id": "r1"}))
    assert (firing.status, commands) == ("waiting", [])
    _, (command,) = advance(firing, RunEnded("0", "completed", {"km": 12}), NOW, rule)
    assert isinstance(command, Notify)
    assert isinstance(asked, StartRun)
    assert command.text == f"12 {asked.run_id}"


@pytest.mark.parametrize("state", ["failed", "crashed", "timed_out", "cancelled"])
def test_a_run_that_is_waited_for_and_does_not_complete_is_a_failed_step(state: str) -> None:
    firing, commands = play(automation("wait"), Started(), RunEnded("0", state))
    assert firing.status == "dead_lettered"
    assert commands == [DeadLetter("0", f"the run ended as {state}"), Finished("dead_lettered")]


def test_a_step_that_takes_longer_than_its_timeout_has_failed() -> None:
    rule = automation("wait")
    firing, commands = play(rule, Started())
    assert commands[1] == SetTimer(NOW + 3600 * SECOND, "0")
    assert advance(firing, TimerDue("0"), NOW + 3599 * SECOND, rule) == (firing, [])
    late, _ = advance(firing, TimerDue("0"), NOW + 3600 * SECOND, rule)
    assert late.status == "dead_lettered"


def test_a_message_is_asked_for_with_its_retries_and_done_when_delivered() -> None:
    firing, (command,) = play(automation("notify"), Started())
    assert isinstance(command, Notify)
    assert (command.text, command.title) == ("truck/7: truck/7", "cold-chain")
    assert (command.attempts, command.delay, command.backoff) == (5, SECOND, 2.0)
    done, commands = advance(firing, StepSucceeded("0"), NOW, automation("notify"))
    assert (done.status, commands) == ("completed", [Finished("completed")])


def test_an_event_is_sent_at_once_and_carries_its_cause() -> None:
    firing, commands = play(automation("emit", "emit"), Started())
    first, second, end = commands
    assert isinstance(first, EmitEvent)
    assert isinstance(second, EmitEvent)
    assert end == Finished("completed")
    assert firing.status == "completed"
    event = from_mapping(first.event)
    assert (event.type, event.subject, event.data) == ("truck.warm", "truck/7", {"c": 9})
    assert (event.hops, event.causationid, event.correlationid) == (1, "e1", "e1")
    assert event.source == "/penstock/automations/default/cold-chain"
    assert first.event["id"] != second.event["id"]


def test_the_root_of_a_chain_stays_its_correlation() -> None:
    _, (command,) = play(automation("run"), Started(), event={**EVENT, "correlationid": "root", "hops": 3})
    assert isinstance(command, StartRun)
    assert (command.correlationid, command.causationid, command.hops) == ("root", "e1", 4)


def test_a_firing_without_events_is_its_own_root() -> None:
    _, (command, _) = play(automation("- {emit: {type: silence.noticed}}"), Started(), event=None)
    assert isinstance(command, EmitEvent)
    assert command.event["correlationid"] == "d1"
    assert "causationid" not in command.event


def test_an_approval_is_asked_for_and_an_approved_one_goes_on() -> None:
    rule = automation("approve", '- {notify: ops, text: "{{ steps.ask.by }} says {{ steps.ask.outcome }}"}')
    firing, (asked,) = play(rule, Started())
    assert isinstance(asked, RequestApproval)
    assert (asked.ask, asked.approvers, asked.needs, asked.four_eyes) == ("Reroute truck/7?", ("user/ann",), 1, True)
    assert (asked.deadline, asked.on_timeout, firing.status) == (NOW + 1800 * SECOND, "reject", "waiting")
    _, (told,) = advance(firing, ApprovalDecided("0", "approved", "user/ann", NOW), NOW, rule)
    assert isinstance(told, Notify)
    assert told.text == "user/ann says approved"


@pytest.mark.parametrize("outcome", ["rejected", "expired", "void"])
def test_a_rejection_ends_the_firing_and_neither_later_steps_nor_on_error_run(outcome: Any) -> None:
    firing, commands = play(
        automation("approve", "run", on_error=("notify",)), Started(), ApprovalDecided("0", outcome)
    )
    assert (firing.status, commands) == ("rejected", [Finished("rejected")])


def test_what_is_shown_has_a_digest_that_changes_with_the_event() -> None:
    _, (one,) = play(automation("approve"), Started())
    _, (other,) = play(automation("approve"), Started(), event={**EVENT, "data": {"celsius": 10}})
    assert isinstance(one, RequestApproval)
    assert isinstance(other, RequestApproval)
    assert one.shown != other.shown
    assert one.approval_id == other.approval_id


def test_a_failed_step_without_on_error_is_dead_lettered_with_its_reason() -> None:
    firing, commands = play(automation("notify", "run"), Started(), StepFailed("0", "channel is gone"))
    assert commands == [DeadLetter("0", "channel is gone"), Finished("dead_lettered")]
    assert firing.results["0"] == {"error": "channel is gone"}


def test_on_error_runs_after_a_failed_step_and_the_firing_ends_as_failed() -> None:
    rule = automation("run", on_error=('- {notify: ops, text: "failed: {{ steps.go.error }}"}',))
    firing, (command,) = play(rule, Started(), StepFailed("0", "no such flow"))
    assert isinstance(command, Notify)
    assert (command.text, command.step) == ("failed: no such flow", "on_error.0")
    done, commands = advance(firing, StepSucceeded("on_error.0"), NOW, rule)
    assert (done.status, commands) == ("failed", [Finished("failed")])


def test_a_failure_inside_on_error_is_dead_lettered() -> None:
    rule = automation("run", on_error=("notify",))
    firing, commands = play(rule, Started(), StepFailed("0", "no"), StepFailed("on_error.0", "neither"))
    assert (firing.status, commands[0]) == ("dead_lettered", DeadLetter("on_error.0", "neither"))


def test_a_template_that_the_event_cannot_fill_fails_the_step_and_names_the_variable() -> None:
    firing, (sent, letter, end) = play(automation("emit", "broken"), Started())
    assert (firing.status, end) == ("dead_lettered", Finished("dead_lettered"))
    assert isinstance(sent, EmitEvent)
    assert isinstance(letter, DeadLetter)
    assert letter.reason == (
        "template '{{ event.data.missing }}' cannot be rendered: `event.data.missing` is missing in this event"
    )


def test_a_run_that_is_not_accepted_is_tried_again_with_back_off_under_the_same_id() -> None:
    rule = automation("- {run: reroute, retry: {attempts: 3, delay: 1s}}")
    firing, (first,) = play(rule, Started())
    assert isinstance(first, StartRun)
    for attempt, pause in ((1, SECOND), (2, 2 * SECOND)):
        firing, commands = advance(firing, StepFailed("0", "busy", True, attempt), NOW, rule)
        assert commands == [SetTimer(NOW + pause, "0")]
        assert advance(firing, TimerDue("0"), NOW + pause - 1, rule) == (firing, [])
        firing, (again,) = advance(firing, TimerDue("0"), NOW + pause, rule)
        assert isinstance(again, StartRun)
        assert (again.run_id, again.attempt) == (first.run_id, attempt + 1)
    dead, _ = advance(firing, StepFailed("0", "busy", True, 3), NOW, rule)
    assert dead.status == "dead_lettered"


def test_an_answer_to_an_earlier_attempt_changes_nothing() -> None:
    rule = automation("- {run: reroute, retry: {attempts: 3, delay: 1s}}")
    firing, _ = play(rule, Started(), StepFailed("0", "busy", True, 1))
    firing, _ = advance(firing, TimerDue("0"), NOW + SECOND, rule)
    assert advance(firing, StepFailed("0", "busy", True, 1), NOW + SECOND, rule) == (firing, [])


@pytest.mark.parametrize("step", ["run", "emit"])
def test_a_chain_past_its_hop_budget_is_dead_lettered_even_where_there_is_on_error(step: str) -> None:
    rule = automation(step, on_error=("notify",))
    firing, commands = play(rule, Started(), event={**EVENT, "hops": HOP_BUDGET})
    assert firing.status == "dead_lettered"
    assert isinstance(commands[0], DeadLetter)
    assert "the budget is 16" in commands[0].reason


def test_the_last_hop_of_the_budget_may_still_be_spent() -> None:
    assert play(automation("emit"), Started(), event={**EVENT, "hops": HOP_BUDGET - 1})[0].status == "completed"


def test_a_secret_is_a_placeholder_in_everything_that_is_stored() -> None:
    firing, (command,) = play(automation("secret"), Started())
    assert isinstance(command, StartRun)
    assert command.parameters == {"token": "Bearer ⟦secret:API:n0nce⟧"}
    assert command.nonce == firing.nonce == "n0nce"


def test_an_event_above_the_size_limit_fails_the_step() -> None:
    rule = automation('- {emit: {type: a.b, source: "{{ event.data.long }}"}}')
    firing, (letter, _) = play(rule, Started(), event={**EVENT, "data": {"long": "x" * 2000}})
    assert firing.status == "dead_lettered"
    assert isinstance(letter, DeadLetter)
    assert letter.reason.startswith("source:")


KINDS = ("approve", "run", "wait", "notify", "emit", "broken")
rules = st.builds(
    lambda then, rescue: replace(automation("run"), then=compiled(then), on_error=compiled(rescue)),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    st.lists(st.sampled_from(KINDS), max_size=2),
)


def compiled(steps: list[str]) -> tuple[Step, ...]:
    """Steps put together at will, since reading YAML for each example would take the longest."""
    return tuple(automation(step).then[0] for step in steps)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Automation, list[tuple[Firing, AnyFact, Firing]]]:
    """A rule, and each (firing before, fact, firing after) of a life to its end, with stray facts between."""
    rule = draw(rules)
    firing, _ = advance(firing_of(rule), Started(), NOW, rule)
    lived: list[tuple[Firing, AnyFact, Firing]] = [(firing_of(rule), Started(), firing)]
    for _ in range(25):
        if firing.ended:
            break
        fact = draw(facts(firing))
        after, _ = advance(firing, fact, NOW, rule)
        lived.append((firing, fact, after))
        firing = after
    return rule, lived


def facts(firing: Firing) -> st.SearchStrategy[AnyFact]:
    step = firing.cursor
    return st.one_of(
        st.just(StepSucceeded(step, {"run_id": "r"})),
        st.builds(StepFailed, st.just(step), st.just("no"), st.booleans(), st.integers(1, 5)),
        st.builds(RunEnded, st.just(step), st.sampled_from(["completed", "failed"]), st.just(None)),
        st.builds(ApprovalDecided, st.just(step), st.sampled_from(["approved", "rejected"])),
        st.builds(StepSucceeded, st.sampled_from(["0", "1", "2", "on_error.0"]), st.just(None)),
        st.just(Started()),
    )


@PATIENT
@given(stories())
def test_repeating_a_fact_changes_nothing(story: tuple[Automation, list[tuple[Firing, AnyFact, Firing]]]) -> None:
    rule, lived = story
    for before, fact, after in lived:
        if before.cursor != after.cursor or after.ended:
            assert advance(after, fact, NOW, rule) == (after, [])


@PATIENT
@given(stories())
def test_a_firing_is_the_same_after_it_was_stored_and_read(
    story: tuple[Automation, list[tuple[Firing, AnyFact, Firing]]],
) -> None:
    rule, lived = story
    for before, fact, after in lived:
        read = Firing.from_json(before.to_json())
        assert read == before
        assert advance(read, fact, NOW, rule) == advance(before, fact, NOW, rule)
        assert Firing.from_json(after.to_json()) == after


@PATIENT
@given(rules, st.booleans())
def test_a_firing_always_ends_once_its_commands_are_answered(rule: Automation, good: bool) -> None:
    firing, commands = advance(firing_of(rule), Started(), NOW, rule)
    for _ in range(50):
        if firing.ended:
            break
        firing, commands = advance(firing, answer(firing, commands, good), NOW + 3600 * SECOND, rule)
    assert firing.ended
    assert commands[-1] == Finished(firing.status)


def answer(firing: Firing, commands: list[AnyCommand], good: bool) -> AnyFact:
    match commands[-1] if commands else None:
        case RequestApproval():
            return ApprovalDecided(firing.cursor, "approved" if good else "rejected")
        case Notify() | StartRun() if not good:
            return StepFailed(firing.cursor, "no", attempt=firing.attempt)
        case Notify() | StartRun():
            return StepSucceeded(firing.cursor, {"run_id": "r"})
    return RunEnded(firing.cursor, "completed" if good else "failed")


@PATIENT
@given(stories())
def test_no_two_commands_of_a_firing_share_an_id(
    story: tuple[Automation, list[tuple[Firing, AnyFact, Firing]]],
) -> None:
    rule, lived = story
    ids: dict[str, str] = {}
    for before, fact, _ in lived:
        for command in advance(before, fact, NOW, rule)[1]:
            for name in ("run_id", "notification_id", "approval_id"):
                if hasattr(command, name):
                    assert ids.setdefault(getattr(command, name), f"{name} {command.step}") == f"{name} {command.step}"  # type: ignore[union-attr]  # hasattr says so
