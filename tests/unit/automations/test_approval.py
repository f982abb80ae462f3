"""Who may decide, when it is decided, and that it is decided once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import Approval, Outcome, Vote, decide, expire, refresh

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

NOW = 1_772_359_200_000_000
MINUTE = 60_000_000
GROUPS = {"dispatch": ["user/ann", "user/bob", "user/cem"]}


@dataclass
class Ballot:
    """An approval on its way."""

    approval: Approval

    def vote(self, person: str, verdict: str = "approve", at: int = NOW, shown: str = "") -> Outcome:
        vote = Vote(person, "approve" if verdict == "approve" else "reject", "page", shown)
        self.approval, outcome = decide(self.approval, vote, at, groups=GROUPS)
        return outcome


def asked(**more: object) -> Ballot:
    found = {
        "approvers": ("group/dispatch",),
        "requested_at": NOW,
        "deadline": NOW + 30 * MINUTE,
        "shown": "s1",
        **more,
    }
    return Ballot(Approval("a1", "Reroute?", **found))  # type: ignore[arg-type]  # keyword arguments of the test


def test_one_approval_of_somebody_who_may_is_enough() -> None:
    ballot = asked()
    assert ballot.vote("user/ann").kind == "approved"
    assert (ballot.approval.final, ballot.approval.decided_by, ballot.approval.decided_at) == (
        "approved",
        "user/ann",
        NOW,
    )


def test_one_rejection_ends_it_however_many_approvals_are_needed() -> None:
    ballot = asked(needs=2)
    ballot.vote("user/ann")
    assert ballot.vote("user/bob", "reject").message == "rejected at 2026-03-01T10:00:00Z by user/bob"
    assert ballot.approval.final == "rejected"


def test_several_are_counted_and_the_same_person_counts_once() -> None:
    ballot = asked(needs=2)
    assert ballot.vote("user/ann") == Outcome("recorded", "user/ann approves; 1 of 2 have approved")
    assert ballot.vote("user/ann") == Outcome("repeated", "user/ann has approved already; 1 of 2 have approved")
    assert ballot.vote("user/bob").kind == "approved"


def test_somebody_may_change_an_approval_into_a_rejection() -> None:
    ballot = asked(needs=2)
    ballot.vote("user/ann")
    assert ballot.vote("user/ann", "reject").kind == "rejected"


def test_a_stranger_is_refused_and_told_who_may() -> None:
    assert asked().vote("user/eve") == Outcome("refused", "user/eve may not decide this; group/dispatch may")


@pytest.mark.parametrize("machine", ["key/ann", "system", "automation/x", "group/dispatch"])
def test_a_machine_identity_never_votes(machine: str) -> None:
    assert asked(approvers=("group/dispatch", machine)).vote(machine).kind == "refused"


def test_four_eyes_keeps_the_starter_from_deciding() -> None:
    ballot = asked(starter="user/ann")
    assert ballot.vote("user/ann").message == (
        "user/ann started this and may not decide it alone (four-eyes); ask another of the approvers"
    )
    assert ballot.vote("user/bob").kind == "approved"


def test_without_four_eyes_the_starter_may_decide() -> None:
    assert asked(starter="user/ann", four_eyes=False).vote("user/ann").kind == "approved"


def test_a_machine_that_started_it_is_no_person_to_four_eyes() -> None:
    assert asked(starter="automation/cold-chain").vote("user/ann").kind == "approved"


def test_a_late_vote_is_told_who_decided_and_when() -> None:
    ballot = asked()
    ballot.vote("user/ann", "reject")
    before = ballot.approval
    told = "already rejected by user/ann at 2026-03-01T10:00:00Z; nothing was changed"
    assert ballot.vote("user/bob", at=NOW + MINUTE) == Outcome("late", told)
    assert ballot.approval == before


def test_a_vote_at_the_deadline_comes_too_late() -> None:
    ballot = asked()
    outcome = ballot.vote("user/ann", at=NOW + 30 * MINUTE)
    assert outcome == Outcome(
        "expired",
        "expired at 2026-03-01T10:30:00Z: nobody had decided by then, so it is rejected; nothing was changed",
    )
    assert ballot.approval.votes == ()


def test_a_vote_after_time_has_approved_is_told_that_it_changed_nothing() -> None:
    ballot = asked(on_timeout="approve")
    outcome = ballot.vote("user/mallory", "reject", at=NOW + 31 * MINUTE)
    assert outcome.kind == "expired"
    assert (ballot.approval.final, ballot.approval.decided_by, ballot.approval.votes) == ("approved", None, ())


def test_nobody_whose_event_took_part_may_decide_under_four_eyes() -> None:
    ballot = asked(approvers=("user/ann", "user/bob"), starter="user/bob", starters=("user/ann", "user/bob"))
    assert ballot.vote("user/ann").kind == "refused"


def test_time_decides_as_the_rule_says() -> None:
    early = asked().approval
    assert expire(early, NOW + MINUTE)[0] == early
    assert expire(early, NOW + 30 * MINUTE)[0].final == "expired"
    granted, outcome = expire(asked(on_timeout="approve").approval, NOW + 31 * MINUTE)
    assert (granted.final, granted.decided_by, granted.decided_at) == ("approved", None, NOW + 30 * MINUTE)
    assert outcome.message == "approved at 2026-03-01T10:30:00Z: nobody had decided in time, as the rule says"


def test_a_vote_on_something_else_than_what_is_asked_does_not_count() -> None:
    ballot = asked()
    assert ballot.vote("user/ann", shown="s0").kind == "refused"
    assert ballot.vote("user/ann", shown="s1").kind == "approved"


def test_a_request_whose_subject_changed_is_void() -> None:
    approval, outcome = refresh(asked().approval, "s2", NOW)
    assert (approval.final, outcome.message) == ("void", "void since 2026-03-01T10:00:00Z: what was asked has changed")
    assert decide(approval, Vote("user/ann", "approve"), NOW, groups=GROUPS)[1].kind == "late"
    assert refresh(asked().approval, "s1", NOW)[0] == asked().approval


votes = st.lists(
    st.tuples(
        st.sampled_from(["user/ann", "user/bob", "user/cem", "user/eve", "key/1"]),
        st.sampled_from(["approve", "approve", "reject"]),
        st.integers(0, 40),
    ),
    max_size=12,
)


@PATIENT
@given(votes, st.integers(1, 3), st.sampled_from([None, "user/ann"]))
def test_there_is_never_more_than_one_final_outcome(
    cast: list[tuple[str, str, int]], needs: int, starter: str | None
) -> None:
    ballot = asked(needs=needs, starter=starter)
    final = None
    for person, verdict, minute in sorted(cast, key=lambda each: each[2]):
        outcome = ballot.vote(person, verdict, NOW + minute * MINUTE)
        assert not (final and outcome.decided)
        final = final or (ballot.approval if outcome.decided else None)
        assert ballot.approval == (final or ballot.approval)
        assert Approval.from_json(ballot.approval.to_json()) == ballot.approval


@PATIENT
@given(st.integers(1, 3))
def test_the_order_of_approvals_says_nothing(needs: int) -> None:
    for order in permutations(["user/ann", "user/bob", "user/cem"]):
        ballot = asked(needs=needs)
        kinds = [ballot.vote(person).kind for person in order]
        assert kinds == ["recorded"] * (needs - 1) + ["approved"] + ["late"] * (3 - needs)
