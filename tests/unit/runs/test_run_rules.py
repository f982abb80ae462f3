"""What may be done with a run in which state, and what a retry does not replay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flows.journal import ROOT, call_key
from penstock.flows.results import digest_arguments
from penstock.flows.states import State, can_become
from penstock.services.run_replay import undone
from penstock.services.run_rules import BECOMES, FROM, OPERATIONS, Deed, OperationRefusedError, decide

operations, run_states = st.sampled_from(OPERATIONS), st.sampled_from(list(State))


@given(operations, run_states, st.booleans(), st.sampled_from([None, "suspend"]), st.booleans())
def test_an_operation_is_done_asked_for_or_refused_by_name(
    operation: str, state: State, held: bool, asked: str | None, at_once: bool
) -> None:
    given_ = {"held": held, "asked": asked, "at_once": at_once}
    if state not in FROM[operation]:  # type: ignore[index]
        with pytest.raises(OperationRefusedError, match=f"r1 is {state}"):
            decide(operation, "r1", state, **given_)  # type: ignore[arg-type]
        return
    deed = decide(operation, "r1", state, **given_)  # type: ignore[arg-type]
    assert can_become(state, BECOMES[operation])  # type: ignore[index]
    assert (deed is Deed.ASK) == (state is State.RUNNING and held and not at_once)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_state_that_is_allowed_is_one_that_the_run_can_leave_so(operation: str) -> None:
    assert all(can_become(state, BECOMES[operation]) for state in FROM[operation])  # type: ignore[index]


def test_a_run_that_is_being_cancelled_is_not_suspended() -> None:
    with pytest.raises(OperationRefusedError, match="is being cancelled"):
        decide("suspend", "r1", State.RUNNING, held=True, asked="cancel")


names = st.sampled_from(["book", "pay", "book.pay"])


@given(st.lists(st.tuples(names, st.sampled_from([None, State.COMPLETED, State.FAILED])), max_size=8))
def test_what_was_undone_is_forgotten_and_what_could_not_be_undone_is_kept(
    made: list[tuple[str, State | None]],
) -> None:
    calls = [(f"c{number}", name, State.COMPLETED) for number, (name, _) in enumerate(made)]
    undo = {
        f"c{number}": (call_key(ROOT, f"{name}.rollback", digest_arguments({"call": f"c{number}"}), 0), name, state)
        for number, (name, state) in enumerate(made)
        if state is not None
    }
    found = set(undone([*calls, *((key, f"{name}.rollback", state) for key, name, state in undo.values())]))
    for number, (_, state) in enumerate(made):
        if state is State.COMPLETED:
            assert {f"c{number}", undo[f"c{number}"][0]} <= found
        elif state is State.FAILED:
            assert f"c{number}" not in found
            assert undo[f"c{number}"][0] in found
    if not undo:
        assert found == set()
