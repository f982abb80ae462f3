"""Who may begin, for any limit and any runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.services.places import decide

LIMIT = st.integers(1, 5)
COUNT = st.integers(0, 8)
WHEN_FULL = st.sampled_from(["queue", "cancel_new", "replace"])


def runs(holding: int, waiting: int) -> tuple[list[str], list[str]]:
    return [f"h{n}" for n in range(holding)], [f"w{n}" for n in range(waiting)]


@given(LIMIT, WHEN_FULL, COUNT, COUNT)
def test_there_are_never_more_than_the_limit_unless_there_were_and_no_place_stays_free(
    limit: int, when_full: str, before: int, new: int
) -> None:
    holding, waiting = runs(before, new)
    verdict = decide("d", limit, when_full, holding, waiting)
    gone = {each for each, _ in verdict.cancel}
    after = [each for each in [*holding, *verdict.admit] if each not in gone]
    assert len(after) <= max(limit, before)
    assert len(after) >= min(limit, before + new)
    assert set(verdict.admit).isdisjoint(gone)
    assert set(verdict.admit) <= set(waiting)


@given(LIMIT, COUNT, COUNT)
def test_a_queue_cancels_nobody_and_keeps_the_order(limit: int, before: int, new: int) -> None:
    holding, waiting = runs(before, new)
    verdict = decide("d", limit, "queue", holding, waiting)
    assert verdict.cancel == ()
    assert list(verdict.admit) == waiting[: max(0, limit - before)]


@given(LIMIT, COUNT, COUNT)
def test_cancel_new_cancels_those_that_find_no_place_and_no_other(limit: int, before: int, new: int) -> None:
    holding, waiting = runs(before, new)
    verdict = decide("d", limit, "cancel_new", holding, waiting)
    assert [*verdict.admit, *(each for each, _ in verdict.cancel)] == waiting


@given(LIMIT, COUNT, st.integers(1, 8))
def test_replace_leaves_the_newest(limit: int, before: int, new: int) -> None:
    holding, waiting = runs(before, new)
    verdict = decide("d", limit, "replace", holding, waiting)
    gone = {each for each, _ in verdict.cancel}
    assert [each for each in [*holding, *waiting] if each not in gone] == [*holding, *waiting][-limit:]


def test_nothing_is_replaced_where_nothing_is_new() -> None:
    assert decide("d", 1, "replace", ["a", "b"], []).cancel == ()


def test_without_a_limit_all_begin() -> None:
    assert decide("d", None, "queue", ["a"], ["b", "c"]).admit == ("b", "c")
