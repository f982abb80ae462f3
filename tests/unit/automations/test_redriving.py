"""A dead-lettered firing is begun again at the step that failed, and nothing before it is repeated."""

from __future__ import annotations

from penstock.automations import Automation, load_texts
from penstock.automations.facts import AnyCommand, AnyFact, Notify, Redriven, RunEnded, Started, StartRun, StepFailed
from penstock.automations.firing import Firing, advance, start
from penstock.events.ids import derived_id

NOW = 1_772_359_200_000_000
TEXT = """
channels: [{name: ops, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}}]
automations:
  - name: shipped
    when: {event: order.placed}
    then:
      - {run: book, wait: completed, name: booked}
      - {notify: ops, text: "{{ steps.booked.result }}"}
"""


def the_rule() -> Automation:
    found = load_texts({"rules.yaml": TEXT})
    assert found.errors == ()
    return found.rules[0]


def begun() -> Firing:
    event = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "order.placed"}
    return start(the_rule(), decision_id="d1", revision=1, events=[event], key=None, at=NOW, nonce="n")


def play(firing: Firing, *facts: AnyFact) -> tuple[Firing, list[AnyCommand]]:
    """The firing after these facts, and the commands of the last one."""
    commands: list[AnyCommand] = []
    for fact in facts:
        firing, commands = advance(firing, fact, NOW, the_rule())
    return firing, commands


FIRST_RUN = derived_id("run", "d1", "0")
DEAD_RUN = (Started(), RunEnded("0", "failed", run_id=FIRST_RUN))
DEAD_MESSAGE = (Started(), RunEnded("0", "completed", "ok", FIRST_RUN), StepFailed("1", "channel_not_found"))


def test_the_failed_step_is_asked_for_anew_under_a_new_id() -> None:
    dead, _ = play(begun(), *DEAD_RUN)
    again, (command,) = play(dead, Redriven())
    assert isinstance(command, StartRun)
    assert (dead.status, again.status, again.cursor) == ("dead_lettered", "running", "0")
    assert command.run_id != FIRST_RUN


def test_steps_before_the_failed_one_keep_their_results_and_are_not_repeated() -> None:
    dead, _ = play(begun(), *DEAD_MESSAGE)
    again, (command,) = play(dead, Redriven())
    assert isinstance(command, Notify)
    assert (command.text, again.cursor, sorted(again.results)) == ("ok", "1", ["0"])


def test_one_wish_that_is_told_twice_begins_it_once() -> None:
    dead, _ = play(begun(), *DEAD_MESSAGE)
    died_again, _ = play(dead, Redriven(0), StepFailed("1", "channel_not_found"))
    assert play(died_again, Redriven(0)) == (died_again, [])
    assert play(died_again, Redriven(1))[0].status == "running"


def test_a_firing_that_is_under_way_or_done_is_left_alone() -> None:
    under_way, _ = play(begun(), Started())
    assert play(under_way, Redriven()) == (under_way, [])


def test_the_late_end_of_a_run_from_before_does_not_answer_for_the_new_one() -> None:
    again, (command,) = play(begun(), *DEAD_RUN, Redriven())
    assert play(again, RunEnded("0", "completed", "old", FIRST_RUN)) == (again, [])
    assert isinstance(command, StartRun)
    assert play(again, RunEnded("0", "completed", "new", command.run_id))[0].cursor == "1"
