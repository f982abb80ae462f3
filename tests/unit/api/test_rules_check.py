"""Checking rules against what is in force: what starts anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_harness import Harness, harness

URL = "/api/v1/namespaces/default/rules"
COUNTED = """
automations:
  - name: three
    when: {event: order.placed, count: 3, within: 5m}
    then: [{emit: {type: order.seen}}]
"""


@pytest.fixture
async def api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Harness]:
    async with harness(sqlite_url) as found:
        yield found


async def post(api: Harness, text: str, *, dry_run: bool) -> Any:
    async with api.client(await api.key("operator")) as client:
        return await client.post(URL, json={"files": {"a.yaml": text}, "dry_run": dry_run})


async def checked(api: Harness, text: str) -> list[tuple[str, str]]:
    answer = await post(api, text, dry_run=True)
    return [(each["severity"], each["message"]) for each in answer.json()["problems"]]


async def test_an_edit_of_when_says_that_its_state_starts_anew(api: Harness) -> None:
    assert (await post(api, COUNTED, dry_run=False)).status_code == 200
    anew = ("warning", "`when` of `three` has changed: its windows and timers start anew")
    assert await checked(api, COUNTED.replace("count: 3", "count: 4")) == [anew]
    assert await checked(api, COUNTED.replace("within: 5m", "within: 300s")) == []
    assert await checked(api, COUNTED.replace("order.seen", "order.counted")) == []
    assert await checked(api, COUNTED.replace("name: three", "name: another")) == []
