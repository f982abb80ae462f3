"""Approvals: one function decides for every channel. Pure; whoever stores the result does so by compare-and-set.

A person is `user/NAME`. Keys, automations and the system are no persons: they never vote, and four-eyes does not
concern them. Once an approval is final nothing changes it; a late vote is told who decided, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.automations.forms import FormError, check_form
from penstock.events.instants import Instant, format_instant

FORMAT = 1
Verdict: TypeAlias = Literal["approve", "reject"]
Final: TypeAlias = Literal["approved", "rejected", "expired", "void"]
Groups: TypeAlias = Mapping[str, Iterable[str]]  # the persons of a group: {"dispatch": ["user/ann"]}


class Vote(msgspec.Struct, frozen=True):
    """What somebody clicked or typed. `shown`: the digest of what they saw; "" where the channel cannot say.

    form: what they filled in.
    """

    person: str
    verdict: Verdict
    channel: str = ""
    shown: str = ""
    comment: str = ""
    form: dict[str, Any] | None = None


class Cast(msgspec.Struct, frozen=True):
    """A vote that counted."""

    person: str
    verdict: Verdict
    at: Instant
    channel: str = ""
    comment: str = ""
    form: dict[str, Any] | None = None


class Approval(msgspec.Struct, frozen=True):
    """A question to people, and how far it is answered.

    starter: who started it, for four-eyes; None or a machine identity where no person did.  decided_by: of the final
    vote; None where time, or a change of what was shown, decided.
    """

    id: str
    ask: str
    approvers: tuple[str, ...]
    requested_at: Instant
    deadline: Instant
    needs: int = 1
    four_eyes: bool = True
    on_timeout: Verdict = "reject"
    shown: str = ""
    starter: str | None = None
    votes: tuple[Cast, ...] = ()
    final: Final | None = None
    decided_by: str | None = None
    decided_at: Instant | None = None
    starters: tuple[str, ...] = ()  # everybody who sent one of the events, where several took part
    form: dict[str, Any] | None = None
    v: int = FORMAT

    def to_json(self) -> bytes:
        """The stored form."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, body: bytes | str) -> Approval:
        """From the stored form, of this format version or the one before."""
        return msgspec.json.decode(body, type=cls)


class Outcome(msgspec.Struct, frozen=True):
    """What became of a vote.

    approved, rejected: it decided, just now.  recorded: it counts, more are needed.  repeated: this person has voted so
    before.  refused: this person may not, or did not see what is asked now.  late: it had been decided before.
    expired, void: the request ended without this vote.
    """

    kind: Literal["approved", "rejected", "recorded", "repeated", "refused", "invalid", "late", "expired", "void"]
    message: str

    @property
    def decided(self) -> bool:
        """Whether the request became final with it."""
        return self.kind in ("approved", "rejected", "expired", "void")


def decide(approval: Approval, vote: Vote, now: Instant, *, groups: Groups | None = None) -> tuple[Approval, Outcome]:
    """Take one vote. Only an outcome that is `decided` makes the approval final, and that happens once.

    groups: the persons of each group as of now.
    """
    if approval.final is not None:
        return approval, Outcome("late", _late(approval))
    if now >= approval.deadline:  # time has decided, whatever this vote says
        ended, _ = expire(approval, now)
        return ended, Outcome("expired", _late(ended))
    if reason := _refusal(approval, vote, groups or {}):
        return approval, Outcome("refused", reason)
    cast = Cast(vote.person, vote.verdict, now, vote.channel, vote.comment)
    if vote.verdict == "reject":
        return _finish(_with(approval, cast), "rejected", vote.person, now)
    if any(each.person == vote.person for each in approval.votes):
        return approval, Outcome("repeated", f"{vote.person} has approved already; {_missing(approval)}")
    if reason := _misfit(approval, vote):
        return approval, Outcome("invalid", reason)
    counted = _with(approval, msgspec.structs.replace(cast, form=vote.form))
    if len(counted.votes) >= counted.needs:
        return _finish(counted, "approved", vote.person, now)
    return counted, Outcome("recorded", f"{vote.person} approves; {_missing(counted)}")


def expire(approval: Approval, now: Instant) -> tuple[Approval, Outcome]:
    """What `on_timeout` says, once the deadline has come; before it nothing changes."""
    if approval.final is not None:
        return approval, Outcome("late", _late(approval))
    if now < approval.deadline:
        return approval, Outcome("recorded", f"open until {format_instant(approval.deadline)}; {_missing(approval)}")
    return _finish(approval, "approved" if approval.on_timeout == "approve" else "expired", None, approval.deadline)


def refresh(approval: Approval, shown: str, now: Instant) -> tuple[Approval, Outcome]:
    """Compare with the digest of what is to be decided now: when it changed, the request is void."""
    if approval.final is not None:
        return approval, Outcome("late", _late(approval))
    if shown == approval.shown:
        return approval, Outcome("recorded", f"unchanged; {_missing(approval)}")
    return _finish(approval, "void", None, now)


def may_decide(approval: Approval, person: str, groups: Groups) -> bool:
    """Whether somebody is among those who are asked, four-eyes aside."""
    if not person.startswith("user/"):
        return False
    members = (groups.get(name.removeprefix("group/"), ()) for name in approval.approvers if name.startswith("group/"))
    return person in approval.approvers or any(person in group for group in members)


def _refusal(approval: Approval, vote: Vote, groups: Groups) -> str:
    if not may_decide(approval, vote.person, groups):
        return f"{vote.person} may not decide this; {', '.join(approval.approvers)} may"
    if approval.four_eyes and vote.person in (approval.starter, *approval.starters):
        return f"{vote.person} started this and may not decide it alone (four-eyes); ask another of the approvers"
    if vote.shown and vote.shown != approval.shown:
        return "what you saw is not what is asked now; open the request again and decide on what it says"
    return ""


def _misfit(approval: Approval, vote: Vote) -> str:
    """What is wrong with the form."""
    if approval.form is None:
        return "this asks for no form; decide without one" if vote.form else ""
    try:
        check_form(approval.form, vote.form or {})
    except FormError as error:
        fields = ", ".join(approval.form.get("properties", {}))
        how = "" if vote.form else f". It asks for a form ({fields}): answer it with --form NAME=VALUE, or in the API"
        return f"{error}{how}"
    return ""


def _finish(approval: Approval, final: Final, by: str | None, at: Instant) -> tuple[Approval, Outcome]:
    done = msgspec.structs.replace(approval, final=final, decided_by=by, decided_at=at)
    return done, Outcome(final, _told(done))


def _with(approval: Approval, cast: Cast) -> Approval:
    return msgspec.structs.replace(approval, votes=(*approval.votes, cast))


def _missing(approval: Approval) -> str:
    return f"{len(approval.votes)} of {approval.needs} have approved"


def _late(approval: Approval) -> str:
    """That a vote came too late."""
    if approval.final in ("approved", "rejected") and approval.decided_by:
        told = f"already {approval.final} by {approval.decided_by} at {format_instant(approval.decided_at or 0)}"
    else:
        told = _told(approval)
    return f"{told}; nothing was changed"


def _told(approval: Approval) -> str:
    """Who decided, and when."""
    at = format_instant(approval.decided_at or 0)
    if approval.final == "void":
        return f"void since {at}: what was asked has changed"
    if approval.final == "expired":
        return f"expired at {at}: nobody had decided by then, so it is rejected"
    who = approval.decided_by or "nobody had decided in time, as the rule says"
    return f"{approval.final} at {at} by {who}" if approval.decided_by else f"{approval.final} at {at}: {who}"
