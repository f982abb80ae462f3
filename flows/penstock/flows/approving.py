"""`approve`: a run pauses until persons have decided, for weeks if need be, and gets back what they filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar, overload

import msgspec

from penstock.events.instants import to_datetime
from penstock.flows import tries
from penstock.flows.answering import Answer, Question, ask_at_terminal, ask_here
from penstock.flows.errors import (
    ApprovalExpired,
    ApprovalFormError,
    ApprovalRejected,
    FlowDefinitionError,
    WaitError,
)
from penstock.flows.forms import Form
from penstock.flows.operations import Life, drive, drive_async
from penstock.flows.retries import Seconds, seconds
from penstock.flows.waits import answered

T = TypeVar("T")
DAY = 86_400.0  # seconds
_APPROVER = re.compile(r"(user|group)/\S+\Z")
OnTimeout = Literal["reject", "approve"]


@dataclass(frozen=True, slots=True)
class Approved:
    """A decision.  by: who made it ("user/ann"); None: time did, as `on_timeout` says.  comment: "" where none."""

    by: str | None
    at: datetime
    comment: str = ""


class _Decided(msgspec.Struct, frozen=True):
    """The recorded answer.  at: in microseconds.  form: as it was filled in."""

    outcome: Literal["approved", "rejected", "expired", "void"]
    by: str | None = None
    at: int = 0
    comment: str = ""
    form: dict[str, Any] | None = None


@overload
async def approve(
    ask: str,
    *,
    approvers: str | Sequence[str],
    needs: int = 1,
    four_eyes: bool = True,
    timeout: Seconds = DAY,
    on_timeout: OnTimeout = "reject",
) -> Approved: ...
@overload
async def approve(
    ask: str,
    *,
    approvers: str | Sequence[str],
    form: type[T],
    needs: int = 1,
    four_eyes: bool = True,
    timeout: Seconds = DAY,
    on_timeout: OnTimeout = "reject",
) -> T: ...
async def approve(ask: str, *, approvers: str | Sequence[str], form: Any = None, **options: Any) -> Any:
    """Have persons decide; the run is paused meanwhile and holds no process.

    ask: what is asked, in a line or a few.  approvers: "user/ann", "group/dispatch", or several of them.  form: what
    they fill in with it: a pydantic model, a dataclass or a TypedDict.  needs: how many have to approve; the form is
    the last one's.  four_eyes: whoever started the run may not decide.  timeout: seconds, or a timedelta, by default a
    day.  on_timeout: "reject", or "approve" (a form then needs a default for each field).
    Returns the filled-in form; without a form an Approved.
    Raises ApprovalRejected with who and when, ApprovalExpired, ApprovalFormError; CallError within a task;
    FlowDefinitionError; WaitError in plain Python where nobody can be asked.
    """
    return await drive_async(_approval(ask, approvers, form, **options))


@overload
def approve_sync(
    ask: str,
    *,
    approvers: str | Sequence[str],
    needs: int = 1,
    four_eyes: bool = True,
    timeout: Seconds = DAY,
    on_timeout: OnTimeout = "reject",
) -> Approved: ...
@overload
def approve_sync(
    ask: str,
    *,
    approvers: str | Sequence[str],
    form: type[T],
    needs: int = 1,
    four_eyes: bool = True,
    timeout: Seconds = DAY,
    on_timeout: OnTimeout = "reject",
) -> T: ...
def approve_sync(ask: str, *, approvers: str | Sequence[str], form: Any = None, **options: Any) -> Any:
    """As `approve`, for sync code."""
    return drive(_approval(ask, approvers, form, **options))


def _approval(
    ask: str,
    approvers: str | Sequence[str],
    kind: type[T] | None,
    *,
    needs: int = 1,
    four_eyes: bool = True,
    timeout: Seconds = DAY,
    on_timeout: OnTimeout = "reject",
) -> Life[T | Approved]:
    form = None if kind is None else Form(kind)
    question = {
        "ask": ask,
        "approvers": _persons(approvers),
        "needs": needs,
        "four_eyes": bool(four_eyes),
        "seconds": seconds(timeout, "timeout"),
        "on_timeout": on_timeout,
        "form": None if form is None else form.schema,
    }
    _check(question, form)
    reason = f"waits for approval: {ask}"
    body = yield from answered("approval", {"ask": ask}, question, reason, lambda: _decided_here(ask, form))
    return _taken(ask, msgspec.json.decode(body, type=_Decided), form)


def _taken(ask: str, decided: _Decided, form: Form[T] | None) -> T | Approved:
    """What the recorded decision means for the code."""
    at = to_datetime(decided.at)
    if decided.outcome == "rejected":
        raise ApprovalRejected(ask, decided.by, at, decided.comment)
    if decided.outcome != "approved":
        why = "what was asked is void since" if decided.outcome == "void" else "nobody had decided by"
        raise ApprovalExpired(ask, None, at, told=f"{ask!r} is not approved: {why} {at:%Y-%m-%d %H:%M:%S} UTC")
    if form is None:
        return Approved(decided.by, at, decided.comment)
    try:
        return form.read(decided.form or {})
    except ApprovalFormError as error:
        raise ApprovalFormError(
            f"{ask!r} was answered by {decided.by} with what the flow cannot use: {error}"
        ) from None


def _decided_here(ask: str, form: Form[Any] | None) -> bytes:
    """In plain Python: by the terminal, or by `answering`."""
    schema = None if form is None else form.schema
    check = (lambda values: None) if form is None else form.read
    answer = ask_here(Question("approval", ask, schema), lambda: ask_at_terminal(ask, schema, check))
    return msgspec.json.encode(_as_decided(answer, form))


def _as_decided(answer: Answer, form: Form[Any] | None) -> _Decided:
    at = tries.now()
    if answer is None:
        return _Decided("expired", at=at)
    if answer is False:
        return _Decided("rejected", "user/here", at)
    if answer is True:
        return _Decided("approved", "user/here", at, form={})
    if form is None or not isinstance(answer, Mapping):
        raise WaitError(f"the answer {answer!r} is none to this approval; give True, False, or the fields of its form")
    return _Decided("approved", "user/here", at, form=form.write(form.read(answer)))


def _persons(approvers: str | Sequence[str]) -> list[str]:
    found = [approvers] if isinstance(approvers, str) else list(approvers)
    wrong = [each for each in found if not isinstance(each, str) or not _APPROVER.match(each)]
    if wrong or not found:
        raise FlowDefinitionError(
            f'approvers={approvers!r}: give those who may decide, as "user/NAME" or "group/NAME", at least one'
        )
    return found


def _check(question: Mapping[str, Any], form: Form[Any] | None) -> None:
    if not isinstance(question["ask"], str) or not question["ask"].strip():
        raise FlowDefinitionError(f"approve({question['ask']!r}): say what is asked")
    if not isinstance(question["needs"], int) or question["needs"] < 1:
        raise FlowDefinitionError(f"needs={question['needs']!r}: at least one person has to approve")
    if question["on_timeout"] not in ("reject", "approve"):
        raise FlowDefinitionError(f'on_timeout={question["on_timeout"]!r}: there are "reject" and "approve"')
    if question["on_timeout"] == "approve" and form is not None and form.schema.get("required"):
        missing = ", ".join(form.schema["required"])
        raise FlowDefinitionError(f'on_timeout="approve": nobody fills in {missing}; give the form defaults for it')
