"""Whoever sets something going does not wave it through alone: from the door to the decision, in real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.rig import until

pytestmark = pytest.mark.timeout(120)
RULES = """
users: [{name: owner}, {name: ann}]
automations:
  - name: guarded
    when: {event: order.placed}
    then: [{approve: {ask: "Ship {{ event.subject }}?", approvers: [user/owner, user/ann]}}]
  - name: open
    when: {event: sample.wanted}
    then: [{approve: {ask: "Send {{ event.subject }}?", approvers: [user/owner], four_eyes: false}}]
  - {name: relayed, when: {event: order.drafted}, then: [{emit: {type: order.placed, subject: relayed}}]}
"""


async def penstock(fleet: Fleet, *arguments: str, key: str) -> tuple[int, str]:
    """Run a command as the bearer of a key.  Returns its exit code and all that it said."""

    def run() -> tuple[int, str]:
        environment = {**fleet.environment, "PENSTOCK_API_URL": fleet.url, "PENSTOCK_API_KEY": key}
        command = [sys.executable, "-m", "penstock.services.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return await asyncio.to_thread(run)


async def post(fleet: Fleet, type_: str, subject: str, **more: str) -> None:
    event = {"specversion": "1.0", "id": subject, "source": "/test", "type": type_, "subject": subject, **more}
    async with fleet.client() as client:
        assert (await client.post("/events", json=event)).status_code == 202


async def pending(fleet: Fleet, about: str) -> str:
    """The id of the approval that asks about something."""

    async def asked() -> str | None:
        async with fleet.client() as client:
            answer = await client.get("/api/v1/namespaces/default/approvals", params={"status": "pending"})
        found: list[dict[str, Any]] = answer.json()["approvals"]
        return next((each["id"] for each in found if about in each["ask"]), None)

    return str(await until(asked, what=f"an approval about {about}"))


async def test_the_starter_may_not_approve_and_is_told_why_unless_the_rule_allows_it(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "approvals.yaml").write_text(RULES)
    fleet.environment["PENSTOCK_RULES"] = str(tmp_path / "rules")
    await fleet.start_all("api", "engine")

    async def in_force() -> bool:
        async with fleet.client() as client:
            return bool((await client.get("/api/v1/namespaces/default/rules")).json().get("revision"))

    await until(in_force, what="the rules to be in force")
    made, printed = await penstock(fleet, "keys", "create", "--actor", "user/ann", "--role", "approver", key="")
    assert made == 0, printed
    ann = printed.splitlines()[0]
    await post(fleet, "order.placed", "direct", actor="user/ann")  # what the sender claims counts for nothing
    await post(fleet, "order.drafted", "draft")  # nor does a detour through another rule help
    await post(fleet, "sample.wanted", "sample")

    for about in ("direct", "relayed"):
        approval = await pending(fleet, about)
        code, said = await penstock(fleet, "approvals", "approve", approval, key=fleet.key)
        assert (code, "user/owner started this" in said, "four-eyes" in said) == (1, True, True), said
        assert await pending(fleet, about) == approval, "a refused vote changes nothing"
        code, said = await penstock(fleet, "approvals", "approve", approval, key=ann)
        assert (code, "user/ann" in said) == (0, True), said

    code, said = await penstock(fleet, "approvals", "approve", await pending(fleet, "sample"), key=fleet.key)
    assert code == 0, said
