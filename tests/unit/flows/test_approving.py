"""`approve` and `wait_for_event` in flows: what is asked, what is given back, and what plain Python does."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator
from tests.support.journals import Kept

from penstock.events import Event
from penstock.flows import (
    ApprovalExpired,
    ApprovalFormError,
    ApprovalRejected,
    Approved,
    CallError,
    EventTimeoutError,
    FlowDefinitionError,
    Question,
    Suspended,
    WaitError,
    answering,
    approve,
    approve_sync,
    flow,
    sleep_sync,
    task,
    wait_for_event,
    wait_for_event_sync,
)
from penstock.flows.context import entered


class Payment(BaseModel):
    amount: int = Field(gt=0)
    note: str = "none"

    @field_validator("note")
    @classmethod
    def _clean(cls, note: str) -> str:
        if note == "bad":
            raise ValueError("say it otherwise")
        return note


@dataclass
class Host:
    """A worker that notes what it is asked."""

    refused: str = ""

    def __post_init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.until: list[int | None] = []

    def ask(self, what: str, key: str, body: bytes) -> Future[None]:
        self.asked.append((what, key, json.loads(body)))
        future: Future[None] = Future()
        if self.refused:
            future.set_exception(WaitError(self.refused))
        else:
            future.set_result(None)
        return future

    def leaving(self, until: int | None) -> None:
        self.until.append(until)


@flow
async def pays() -> Payment:
    return await approve("Pay?", approvers=["user/ann", "group/money"], form=Payment, needs=2, timeout=60)


@flow
def asks() -> Approved:
    return approve_sync("Sure?", approvers="user/ann")


@flow
async def both() -> list[Any]:
    return list(await asyncio.gather(approve("A?", approvers="user/a"), approve("B?", approvers="user/b")))


@flow
async def listens() -> int:
    event = await wait_for_event("order.paid", {"subject": ["A"]}, timeout=60)
    found: int = event.data["n"]
    return found


def on_worker(function: Any, kept: Kept | None = None, host: Host | None = None) -> tuple[Any, Kept, Host]:
    """One try on a worker: what the flow returned, or the Suspended that it left by."""
    kept, host = kept or Kept(), host or Host()
    with entered(kept.context(may_suspend=True, host=host)):
        try:
            found = function.call_body({})
            return (asyncio.run(found) if function.is_async else found), kept, host
        except Suspended as left:
            return left, kept, host


def answered(host: Host, *bodies: dict[str, Any] | None) -> Kept:
    return Kept({key: json.dumps(body).encode() for (_, key, _), body in zip(host.asked, bodies, strict=True)})


def decided(outcome: str, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, "by": "user/ann", "at": 1_700_000_000_000_000, "comment": "", "form": None} | more


def test_a_question_is_asked_once_with_its_form_and_the_run_leaves_until_it_is_answered() -> None:
    left, _, host = on_worker(pays)
    ((what, key, body),) = host.asked
    assert (left.paused, left.key, what, left.reason) == (True, key, "approval", "waits for approval: Pay?")
    assert (body["approvers"], body["needs"], body["seconds"]) == (["user/ann", "group/money"], 2, 60)
    assert body["form"]["properties"]["amount"]["exclusiveMinimum"] == 0
    found, _, again = on_worker(pays, answered(host, decided("approved", form={"amount": 7})))
    assert (found, again.asked) == (Payment(amount=7), [])


def test_without_a_form_the_flow_gets_who_and_why() -> None:
    _, _, host = on_worker(asks)
    found, _, _ = on_worker(asks, answered(host, decided("approved", comment="fine")))
    assert (found.by, found.comment, found.at.year) == ("user/ann", "fine", 2023)


def test_a_no_and_a_silence_are_errors_that_say_who_and_when() -> None:
    _, _, host = on_worker(asks)
    with pytest.raises(ApprovalRejected, match=r"'Sure\?' was rejected by user/ann at 2023-11-14 .*: too dear"):
        on_worker(asks, answered(host, decided("rejected", comment="too dear")))
    with pytest.raises(ApprovalExpired, match="nobody had decided by 2023-11-14"):
        on_worker(asks, answered(host, decided("expired", by=None)))
    assert issubclass(ApprovalExpired, TimeoutError)


def test_what_a_validator_of_the_form_refuses_is_told_with_who_filled_it_in() -> None:
    _, _, host = on_worker(pays)
    with pytest.raises(ApprovalFormError, match=r"by user/ann .* use: note: Value error, say it otherwise"):
        on_worker(pays, answered(host, decided("approved", form={"amount": 1, "note": "bad"})))


def test_questions_that_are_gathered_are_all_asked_before_the_run_leaves() -> None:
    _, _, host = on_worker(both)
    assert [body["ask"] for _, _, body in host.asked] == ["A?", "B?"]


def test_a_sub_flow_asks_for_the_run_and_is_not_recorded_until_it_has_its_answer() -> None:
    bodies: list[str] = []

    @task
    def before() -> str:
        bodies.append("before")
        return "x"

    @flow
    async def outer() -> str:
        word = before()
        paid = await pays()
        return f"{word}{paid.amount}"

    left, first, host = on_worker(outer)
    assert (left.paused, [call.task for call in first.calls]) == (True, ["before"])
    known = first.completed() | answered(host, decided("approved", form={"amount": 7})).recorded
    found, second, _ = on_worker(outer, Kept(known))
    assert (found, bodies, [call.task for call in second.calls]) == ("x7", ["before"], ["pays"])


def test_a_wait_beside_a_sleep_is_over_when_the_sleep_is() -> None:
    @flow
    def waits() -> None:
        sleep_sync(3600)

    left, _, host = on_worker(waits)
    assert host.until == [left.until]


def test_an_event_comes_back_as_one_or_the_wait_times_out() -> None:
    left, _, host = on_worker(listens)
    ((what, _, body),) = host.asked
    assert (left.paused, what, body["type"], body["where"]) == (False, "event", ["order.paid"], {"subject": ["A"]})
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"n": 3}}
    assert on_worker(listens, answered(host, event))[0] == 3
    with pytest.raises(EventTimeoutError, match=r"no event order\.paid that matches came within 60 s"):
        on_worker(listens, answered(host, None))


def test_what_a_worker_refuses_to_wait_for_is_raised_where_it_was_asked() -> None:
    with pytest.raises(WaitError, match="no such pattern"):
        on_worker(listens, host=Host(refused="no such pattern"))


def test_tasks_cannot_wait_for_answers() -> None:
    @task
    def inner() -> None:
        approve_sync("Sure?", approvers="user/ann")

    @flow
    def outer() -> None:
        inner()

    with pytest.raises(CallError, match="call it from the flow"):
        on_worker(outer)
    with pytest.raises(CallError, match="call it from the flow"):
        outer()


def test_in_plain_python_a_test_answers_and_nobody_else() -> None:
    seen: list[Question] = []

    def answer(question: Question) -> Any:
        seen.append(question)
        return {"amount": "7"} if question.form else {"data": {"n": 5}, "type": "order.paid"}

    with answering(answer):
        assert asyncio.run(pays()).amount == 7
        assert asyncio.run(listens()) == 5
    assert [question.kind for question in seen] == ["approval", "event"]
    with answering(lambda _: False), pytest.raises(ApprovalRejected):
        asks()
    with answering(lambda _: None), pytest.raises(EventTimeoutError):
        asyncio.run(listens())
    with answering(lambda _: Event(type="order.paid", source="/s", data={"n": 1})):
        assert asyncio.run(listens()) == 1
    with pytest.raises(WaitError, match="penstock approvals approve"):
        asks()
    with pytest.raises(WaitError, match="nobody can answer here"):
        asyncio.run(listens())


def test_at_a_terminal_a_person_is_asked_until_the_form_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    told = io.StringIO()
    monkeypatch.setattr(sys, "stdin", Terminal("maybe\ny\nmuch\n\n12\nby card\n"))
    monkeypatch.setattr(sys, "stderr", told)
    assert asyncio.run(pays()) == Payment(amount=12, note="by card")
    assert "Pay? [y/n] Pay? [y/n]   amount (integer): " in told.getvalue()
    assert "amount: Input should be a valid integer" in told.getvalue()
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(ApprovalRejected):
        asks()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"approvers": []}, "at least one"),
        ({"approvers": "ann"}, "user/NAME"),
        ({"needs": 0}, "at least one person"),
        ({"form": int}, "its fields are filled in"),
        ({"form": Kept}, "form=Kept: it has no JSON Schema"),
        ({"on_timeout": "maybe"}, "reject"),
        ({"on_timeout": "approve", "form": Payment}, "nobody fills in amount"),
        ({"timeout": -1}, "timeout=-1"),
    ],
)
def test_questions_that_could_never_be_answered_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(FlowDefinitionError, match=told):
        approve_sync(**({"ask": "Sure?", "approvers": "user/ann"} | wrong))


def test_a_wait_for_no_type_is_refused() -> None:
    with pytest.raises(FlowDefinitionError, match="give a type of event"):
        wait_for_event_sync([])
