"""A person with a browser: signs in by the link, sees what is asked, approves it, sees the result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.async_api import Page, async_playwright, expect
from tests.support.approvals_rows import ask
from tests.support.fake_bus import FakeBus
from tests.support.served import Served, served
from tests.support.services.install import find, on_path

from penstock.automations.approval import Vote
from penstock.services import approvals
from penstock.services.database import tables

QUESTION = "Reroute truck/7?"


@pytest.fixture
async def api(sqlite_url: str) -> AsyncIterator[Served]:
    async with served(sqlite_url, FakeBus()) as found:
        yield found


@pytest.fixture
async def page(request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A page of Chromium, without scripts unless a test asks for them; a complaint on its console fails the test."""
    program = find(
        on_path("chromium", "chromium-browser", "google-chrome"),
        what="a Chromium browser",
        packages=["chromium"],
        variable="PATH to one",
    )
    async with async_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        context = await browser.new_context(
            java_script_enabled=getattr(request, "param", False), viewport={"width": 390, "height": 844}
        )
        found = await context.new_page()
        complaints: list[str] = []
        found.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        found.on("pageerror", lambda error: complaints.append(str(error)))
        yield found
        await browser.close()
        # Chromium notes each answer that is no success; those are what the tests ask for.
        assert [text for text in complaints if "status of 40" not in text] == []


async def sign_in(page: Page, api: Served) -> None:
    await page.goto(await api.sign_in_url())
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(f"{api.url}/approvals")


async def status_of(api: Served, id_: str) -> str:
    async with api.context.database.read() as connection:
        query = sa.select(tables.approval.c.status).where(tables.approval.c.id == id_)
        return str((await connection.execute(query)).scalar_one())


@pytest.mark.parametrize("page", [True, False], ids=["scripts on", "scripts off"], indirect=True)
async def test_an_approval_from_the_sign_in_link_to_the_result(api: Served, page: Page, tmp_path: Path) -> None:
    await ask(api.context.database, ask=QUESTION, approvers=("user/owner",))
    await page.goto(f"{api.url}/approvals")
    await expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    await sign_in(page, api)
    await page.get_by_role("link", name=QUESTION).click()
    await expect(page.get_by_text("sensor.temperature")).to_be_visible()
    await page.get_by_label("Comment").fill("Linz has a free dock")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("status")).to_contain_text("Approved.")
    await expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    assert await status_of(api, "a1") == "approved"
    await page.get_by_role("link", name=QUESTION).click()
    await expect(page.get_by_text("Linz has a free dock")).to_be_visible()
    assert await page.screenshot(path=tmp_path / "approved.png", full_page=True)


async def test_whoever_clicks_too_late_reads_who_decided(api: Served, page: Page) -> None:
    await ask(api.context.database, ask=QUESTION, approvers=("user/owner", "user/bob"))
    await sign_in(page, api)
    await approvals.decide(api.context, "a1", Vote("user/bob", "reject", "slack"))
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("alert")).to_contain_text("user/bob")
    assert await status_of(api, "a1") == "rejected"


async def test_signing_out_leaves_nothing_to_see(api: Served, page: Page) -> None:
    await sign_in(page, api)
    await page.get_by_role("button", name="Sign out").click()
    await page.goto(f"{api.url}/approvals")
    await expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()


async def test_no_page_is_wider_than_a_phone(api: Served, page: Page) -> None:
    long = "x" * 300
    await ask(api.context.database, ask=f"Release {long}?", approvers=("user/owner",), automation=long)
    await sign_in(page, api)
    for path in ("/approvals", "/approvals/a1"):
        await page.goto(api.url + path)
        box = await page.locator("main").bounding_box()
        form = await page.locator("article.card").first.bounding_box()
        assert box is not None
        assert form is not None
        assert form["x"] + form["width"] <= 390
