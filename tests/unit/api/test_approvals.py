"""Approvals through the API and the page; one function decides for both."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness
from tests.support.approvals_rows import LANE, ask

from penstock.automations.approval import Vote
from penstock.services import approvals
from penstock.services.api.rendering import ago
from penstock.services.database import clock, tables

URL = "/api/v1/namespaces/default/approvals"


async def rows(api: Harness, table: sa.Table) -> list[dict[str, Any]]:
    async with api.database.read() as connection:
        return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]


async def decisions(api: Harness) -> list[dict[str, Any]]:
    """What the outbox says about approvals."""
    return [json.loads(row["value"]) for row in await rows(api, tables.outbox)]


async def test_an_approval_is_one_transaction_with_its_fact_its_event_and_its_audit(api: Harness) -> None:
    await ask(api.database)
    async with api.client(await api.key("approver")) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve", "comment": "go"})
    body = answer.json()
    assert (answer.status_code, body["status"], body["decided_by"]) == (200, "approved", "user/ann")
    [fact] = await rows(api, tables.fact)
    assert (fact["firing_id"], fact["lane"]) == ("f-a1", LANE)
    told = json.loads(fact["body"])
    assert (told["type"], told["step"], told["outcome"], told["by"], told["comment"]) == (
        "ApprovalDecided", "0", "approved", "user/ann", "go",
    )  # fmt: skip
    [event] = await decisions(api)
    assert (event["type"], event["subject"], event["correlationid"], event["hops"]) == (
        "penstock.approval.decided", "a1", "root", 2,
    )  # fmt: skip
    [audit] = [row for row in await rows(api, tables.audit) if row["action"] == "approval.decided"]
    assert (audit["actor"], audit["object"]) == ("user/ann", "approval/a1")
    detail = json.loads(audit["detail"])
    assert (detail["channel"], detail["shown"], detail["comment"]) == ("api", "digest", "go")
    assert {"outbox", "facts"} <= set(api.redis.published)


async def test_a_late_click_is_told_who_decided_and_when(api: Harness) -> None:
    await ask(api.database, approvers=("user/ann", "user/bob"))
    async with api.client(await api.key("approver")) as ann:
        await ann.post(f"{URL}/a1/decision", json={"decision": "reject"})
    async with api.client(await api.key("approver", actor="user/bob")) as bob:
        answer = await bob.post(f"{URL}/a1/decision", json={"decision": "approve"})
    problem = answer.json()
    assert (answer.status_code, problem["result"], problem["decided_by"]) == (409, "rejected", "user/ann")
    assert "already rejected by user/" in problem["detail"]
    assert "user/ann" in problem["detail"]
    assert len(await rows(api, tables.fact)) == 1


async def test_of_many_voters_at_once_exactly_one_decides(api: Harness) -> None:
    people = [f"user/p{n}" for n in range(8)]
    await ask(api.database, approvers=tuple(people))
    votes = [Vote(person, "approve" if n % 2 else "reject", "test") for n, person in enumerate(people)]
    outcomes = await asyncio.gather(*(approvals.decide(api.context, "a1", vote) for vote in votes))
    assert sum(outcome.decided for outcome in outcomes) == 1
    assert len(await rows(api, tables.fact)) == len(await decisions(api)) == 1


async def test_all_votes_that_are_needed_are_counted_however_close_they_come(api: Harness) -> None:
    people = [f"user/p{n}" for n in range(5)]
    await ask(api.database, approvers=tuple(people), needs=5)
    votes = [Vote(person, "approve", "test") for person in people]
    outcomes = await asyncio.gather(*(approvals.decide(api.context, "a1", vote) for vote in votes))
    assert sorted(outcome.kind for outcome in outcomes) == ["approved", *["recorded"] * 4]


@pytest.mark.parametrize(
    ("actor", "roles", "status"),
    [("user/eve", ("approver",), 403), ("user/ann", ("viewer", "operator"), 403), ("key/ci", ("approver",), 403)],
)
async def test_who_is_not_asked_or_has_no_role_or_is_no_person_does_not_decide(
    api: Harness, actor: str, roles: Any, status: int
) -> None:
    await ask(api.database)
    async with api.client(await api.key(*roles, actor=actor)) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve"})
    assert answer.status_code == status
    assert (await rows(api, tables.approval))[0]["status"] == "pending"


async def test_what_was_seen_must_be_what_is_asked(api: Harness) -> None:
    await ask(api.database)
    async with api.client(await api.key("approver")) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve", "shown": "another"})
        assert answer.status_code == 403
        assert "what you saw" in answer.json()["detail"]


async def test_another_namespace_sees_and_decides_nothing(api: Harness) -> None:
    await ask(api.database)
    async with api.client(await api.key("admin", namespace="other")) as client:
        assert (await client.get(URL)).status_code == 403
        assert (await client.get("/api/v1/namespaces/other/approvals")).json() == {"approvals": []}
        answer = await client.post("/api/v1/namespaces/other/approvals/a1/decision", json={"decision": "approve"})
        assert answer.status_code == 404


async def test_a_get_never_decides(api: Harness) -> None:
    await ask(api.database)
    browser = await api.browser("approver")
    for path in ("/approvals", "/approvals/a1", "/approvals/a1?decision=approve", f"{URL}/a1", f"{URL}/a1/decision"):
        await browser.get(path)
    assert (await rows(api, tables.approval))[0]["status"] == "pending"
    assert await rows(api, tables.fact) == []


@pytest.mark.parametrize("body", [{}, {"decision": "maybe"}, {"decision": "approve", "extra": 1}])
async def test_a_decision_that_is_none_is_refused(api: Harness, body: dict[str, object]) -> None:
    await ask(api.database)
    async with api.client(await api.key("approver")) as client:
        assert (await client.post(f"{URL}/a1/decision", json=body)).status_code == 400


async def test_time_runs_out_as_the_rule_says(api: Harness) -> None:
    await ask(api.database, "late")
    await ask(api.database, "lenient", on_timeout="approve")
    await ask(api.database, "open", seconds=7_200)
    async with api.database.read() as connection:
        now = int((await connection.execute(sa.select(clock.now()))).scalar_one())
    assert await approvals.expire_due(api.context, now) == 0
    assert await approvals.expire_due(api.context, now + 700_000_000) == 2
    assert await approvals.expire_due(api.context, now + 700_000_000) == 0
    found = {row["id"]: row["status"] for row in await rows(api, tables.approval)}
    assert found == {"late": "expired", "lenient": "approved", "open": "pending"}
    assert {(event["type"], event["data"]["outcome"]) for event in await decisions(api)} == {
        ("penstock.approval.expired", "expired"),
        ("penstock.approval.expired", "approved"),
    }
    assert {json.loads(row["body"])["outcome"] for row in await rows(api, tables.fact)} == {"expired", "approved"}


async def test_a_vote_after_the_deadline_ends_it_and_is_told_so(api: Harness) -> None:
    await ask(api.database, seconds=-1)
    async with api.client(await api.key("approver")) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve"})
    assert (answer.status_code, answer.json()["outcome"]) == (409, "expired")
    assert len(await rows(api, tables.fact)) == 1


async def csrf(page: str) -> str:
    found = re.search(r'action="/approvals/a1">\s*<input type="hidden" name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


async def test_a_form_that_does_not_fit_is_a_422_with_the_field_and_decides_nothing(api: Harness) -> None:
    form = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    await ask(api.database, form=form)
    async with api.client(await api.key("approver")) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve", "form": {"amount": "x"}})
        told = answer.json()
        assert (answer.status_code, told["detail"]) == (422, "amount: 'x' is not of type 'integer'")
        assert told["form"] == form
        assert (await client.post(f"{URL}/a1/decision", json={"decision": "approve"})).status_code == 422
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve", "form": {"amount": 3}})
        assert (answer.status_code, answer.json()["votes"][0]["form"]) == (200, {"amount": 3})


async def test_an_answer_with_a_form_that_nobody_asked_for_is_refused(api: Harness) -> None:
    await ask(api.database)
    async with api.client(await api.key("approver")) as client:
        answer = await client.post(f"{URL}/a1/decision", json={"decision": "approve", "form": {"amount": 3}})
    assert (answer.status_code, "asks for no form" in answer.text) == (422, True)


async def test_the_page_decides_with_a_csrf_token_only(api: Harness) -> None:
    await ask(api.database)
    browser = await api.browser("approver")
    page = (await browser.get("/approvals")).text
    assert "Reroute truck/7?" in page
    assert (await browser.post("/approvals/a1", data={"decision": "approve"})).status_code == 403
    assert (await browser.post("/approvals/a1", data={"decision": "approve", "csrf": "no"})).status_code == 403
    assert (await rows(api, tables.approval))[0]["status"] == "pending"
    answer = await browser.post("/approvals/a1", data={"decision": "approve", "csrf": await csrf(page)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/approvals?done=a1")
    told = (await browser.get("/approvals?done=a1")).text
    assert "Approved." in told
    assert "Nothing waits for you" in told


async def test_a_late_click_on_the_page_is_told_kindly(api: Harness) -> None:
    await ask(api.database, approvers=("user/ann", "user/bob"))
    browser = await api.browser("approver")
    token = await csrf((await browser.get("/approvals")).text)
    await approvals.decide(api.context, "a1", Vote("user/bob", "approve", "cli"))
    answer = await browser.post("/approvals/a1", data={"decision": "reject", "csrf": token})
    assert answer.status_code == 409
    assert "Not counted." in answer.text
    assert "user/bob" in answer.text


async def test_what_an_event_says_is_never_markup(api: Harness) -> None:
    await ask(api.database, ask="<script>alert(1)</script>", automation='"><img src=x>')
    browser = await api.browser("approver")
    for path in ("/approvals", "/approvals/a1"):
        page = (await browser.get(path)).text
        assert "<script" not in page
        assert "<img" not in page
        assert "&lt;script&gt;" in page


async def test_the_page_says_what_led_to_the_question(api: Harness) -> None:
    await ask(api.database)
    page = (await (await api.browser("viewer")).get("/approvals/a1")).text
    assert "sensor.temperature" in page
    assert "9.5" in page
    assert "May decide" in page or "may decide" in page


async def test_an_approval_that_is_none_is_a_friendly_404(api: Harness) -> None:
    answer = await (await api.browser("viewer")).get("/approvals/none")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (-44, "just now"),
        (30, "in a moment"),
        (-50, "1 min ago"),
        (-3_600, "1 h ago"),
        (90_000, "in 1 d"),
    ],
)
def test_times_are_told_as_people_say_them(seconds: int, text: str) -> None:
    assert ago("2026-03-01T10:00:00Z", 1_772_359_200_000_000 - seconds * 1_000_000) == text
