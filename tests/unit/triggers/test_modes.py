"""`mode` as the dispatcher asks it."""

from __future__ import annotations

import pytest

from penstock.triggers.forms import Mode
from penstock.triggers.modes import Admission, Unended, admit, next_to_start

RUNNING, WAITING = Unended("r"), Unended("w", waiting=True)


@pytest.mark.parametrize("mode", ["single", "queued", "restart", "parallel", "keep_latest"])
def test_a_firing_starts_where_no_other_is_under_way(mode: Mode) -> None:
    assert admit(mode, []) == Admission("start")


@pytest.mark.parametrize(
    ("mode", "act", "replaced"),
    [
        ("single", "drop", ()),
        ("queued", "wait", ()),
        ("restart", "start", ("r", "w")),
        ("parallel", "start", ()),
        ("keep_latest", "wait", ("w",)),
    ],
)
def test_what_becomes_of_one_beside_others(mode: Mode, act: str, replaced: tuple[str, ...]) -> None:
    found = admit(mode, [RUNNING, WAITING])
    assert (found.act, found.replaced) == (act, replaced)
    assert found.reason.startswith("mode") == (act == "drop" or bool(replaced))


def test_the_first_that_waits_starts_once_none_runs() -> None:
    assert next_to_start("queued", [WAITING, Unended("later", waiting=True)]) == "w"
    assert next_to_start("queued", [RUNNING, WAITING]) is None
    assert next_to_start("queued", []) is None
    assert next_to_start("parallel", [WAITING]) is None
