"""docs/runs.md tells the states as they are, and commands that there are."""

from __future__ import annotations

import io
import re
import shlex
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

import pytest

from penstock.flows.states import TRANSITIONS, State
from penstock.services.cli import ROOMS

PAGE = (Path(__file__).parents[3] / "docs/runs.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]


def test_the_table_of_states_is_true() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    assert list(table) == [state.value for state in State]
    for state, text in table.items():
        named = {each for each in State if re.search(rf"\b{each}\b", text)}
        wanted = TRANSITIONS[State(state)]
        if text.startswith("any but"):
            assert wanted | {State.RUNNING, *named} == set(State)
        elif state == "pending":
            assert named <= wanted  # `retrying` of a run that has not begun is too rare to be told
        else:
            assert named == wanted


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_there_is(line: str) -> None:
    program, room, *words = shlex.split(line)
    assert program == "penstock"
    help_ = io.StringIO()
    with redirect_stdout(help_), suppress(SystemExit):
        command = words[:1] if room == "runs" else []
        import_module(ROOMS[room][0]).app([*command, "--help"], prog_name=room)
    for option in (word for word in words if word.startswith("--")):
        assert option in help_.getvalue()
