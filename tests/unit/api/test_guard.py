"""Who gets in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness, harness

from penstock.services.api import ensure_owner_key
from penstock.services.api.keys import create_sign_in, find_key
from penstock.services.database import tables

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["/events", "/approvals", "/api/v1/namespaces/default/approvals", "/api/v1/openapi.json", "/nothing"]
)
async def test_without_a_key_there_is_401_everywhere(api: Harness, method: str, path: str) -> None:
    async with api.client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("key", ["nonsense", "pk_", "pk_00000000_abc", ""])
async def test_a_key_that_nobody_made_is_no_key(api: Harness, key: str) -> None:
    async with api.client(headers={"Authorization": f"Bearer {key}"}) as client:
        assert (await client.post("/events", json=EVENT)).status_code == 401


async def test_a_wrong_key_is_told_apart_from_none(sqlite_url: str, tmp_path: Path) -> None:
    async with harness(sqlite_url, data_dir=tmp_path) as api:
        async with api.client() as client:
            assert "penstock keys create" in (await client.get("/events")).json()["detail"]
            (tmp_path / "owner.key").write_text("pk_a_b")
            assert str(tmp_path / "owner.key") in (await client.get("/events")).json()["detail"]
        async with api.client("pk_wrong_key") as client:
            assert "PENSTOCK_API_KEY" in (await client.get("/events")).json()["detail"]


async def test_beyond_the_loopback_nobody_is_told_a_path(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "owner.key").write_text("pk_a_b")
    async with harness(sqlite_url, data_dir=tmp_path, host="0.0.0.0") as api, api.client() as client:
        assert "owner.key" not in (await client.get("/events")).json()["detail"]


async def test_a_key_with_the_right_prefix_and_another_secret_is_no_key(api: Harness) -> None:
    key = await api.key("admin")
    async with api.client(key[:-1] + ("A" if key[-1] != "A" else "B")) as client:
        assert (await client.post("/events", json=EVENT)).status_code == 401


async def test_a_role_that_is_missing_is_a_403_which_names_it(api: Harness) -> None:
    async with api.client(await api.key("viewer")) as client:
        answer = await client.post("/events", json=EVENT)
    assert (answer.status_code, answer.json()["role"]) == (403, "operator")


async def test_a_revoked_key_is_no_key(api: Harness) -> None:
    key = await api.key("operator")
    async with api.database.begin() as connection:
        await connection.execute(sa.update(tables.api_key).values(revoked=1))
    async with api.client(key) as client:
        assert (await client.post("/events", json=EVENT)).status_code == 401


async def test_health_needs_no_key(api: Harness) -> None:
    async with api.client() as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/health/ready")).status_code == 200
        api.bus.away = True
        assert (await client.get("/health/ready")).status_code == 503


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:4180"])
async def test_a_foreign_host_is_refused_on_loopback(api: Harness, host: str) -> None:
    async with api.client(await api.key("admin")) as client:
        answer = await client.get("/health", headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:4180"])
async def test_our_own_names_are_served(api: Harness, host: str) -> None:
    async with api.client() as client:
        assert (await client.get("/health", headers={"Host": host})).status_code == 200


async def test_beyond_loopback_any_host_is_served_until_the_public_one_is_named(sqlite_url: str) -> None:
    async with harness(sqlite_url, host="0.0.0.0") as open_, open_.client() as client:
        assert (await client.get("/health", headers={"Host": "penstock.internal"})).status_code == 200
    async with (
        harness(sqlite_url, host="0.0.0.0", api_url="https://penstock.internal") as named,
        named.client() as client,
    ):
        assert (await client.get("/health", headers={"Host": "penstock.internal"})).status_code == 200
        assert (await client.get("/health", headers={"Host": "other.internal"})).status_code == 421


async def test_the_owner_key_is_made_once_and_stored_as_a_hash(api: Harness) -> None:
    key = await ensure_owner_key(api.database, api.context.settings)
    assert key is not None
    assert await ensure_owner_key(api.database, api.context.settings) is None
    async with api.database.read() as connection:
        rows = (await connection.execute(sa.select(tables.api_key))).mappings().all()
        audit = (await connection.execute(sa.select(tables.audit))).mappings().all()
    assert [row["actor"] for row in rows] == ["user/owner"]
    assert key not in str(rows) + str(audit)
    assert [row["action"] for row in audit] == ["key.created"]
    async with api.client(key) as client:
        assert (await client.post("/events", json=EVENT)).status_code == 202


async def test_a_sign_in_link_signs_in_once(api: Harness) -> None:
    identity = await find_key(api.database, await api.key("viewer"))
    assert identity is not None
    token = await create_sign_in(api.database, identity.key_id, namespace="default", by="user/test")
    async with api.client() as first, api.client() as second:
        assert (await first.get("/sign-in", params={"token": token})).status_code == 200
        assert (await first.get("/sign-in", params={"token": token})).status_code == 200  # looking does not spend it
        answer = await first.post("/sign-in", data={"token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/approvals")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert (await first.get("/approvals")).status_code == 200
        assert (await second.post("/sign-in", data={"token": token})).status_code == 403
        assert (await second.get("/approvals")).status_code == 401


async def test_an_old_sign_in_link_does_not_sign_in(api: Harness) -> None:
    identity = await find_key(api.database, await api.key("viewer"))
    assert identity is not None
    token = await create_sign_in(api.database, identity.key_id, namespace="default", by="user/test")
    async with api.database.begin() as connection:
        await connection.execute(sa.update(tables.sign_in).values(expires_at=1))
    async with api.client() as client:
        assert (await client.post("/sign-in", data={"token": token})).status_code == 403


async def test_over_https_the_cookie_is_bound_to_the_host(api: Harness) -> None:
    identity = await find_key(api.database, await api.key("viewer"))
    assert identity is not None
    token = await create_sign_in(api.database, identity.key_id, namespace="default", by="user/test")
    async with api.client(base_url="https://localhost") as client:
        answer = await client.post("/sign-in", data={"token": token})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-penstock=")
    assert "secure" in cookie.lower()


async def test_an_expired_session_is_no_session(api: Harness) -> None:
    browser = await api.browser("viewer")
    assert (await browser.get("/approvals")).status_code == 200
    async with api.database.begin() as connection:
        await connection.execute(sa.update(tables.session).values(expires_at=1))
    answer = await browser.get("/approvals")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


async def test_signing_out_ends_the_session(api: Harness) -> None:
    browser = await api.browser("viewer")
    cookies = dict(browser.cookies)
    csrf = await csrf_of(api)
    assert (await browser.post("/sign-out", data={"csrf": csrf})).status_code == 303
    async with api.client(cookies=cookies) as thief:
        assert (await thief.get("/approvals")).status_code == 401


async def csrf_of(api: Harness) -> str:
    async with api.database.read() as connection:
        return str((await connection.execute(sa.select(tables.session.c.csrf))).scalar_one())


async def post_event(browser: httpx.AsyncClient, **headers: str) -> int:
    return (await browser.post("/events", json=EVENT, headers=headers)).status_code


async def test_a_session_writes_only_with_its_csrf_token(api: Harness) -> None:
    browser = await api.browser("operator")
    csrf = await csrf_of(api)
    assert await post_event(browser) == 403
    assert await post_event(browser, **{"X-CSRF-Token": "wrong"}) == 403
    assert await post_event(browser, **{"X-CSRF-Token": csrf}) == 202


@pytest.mark.parametrize(
    "header", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_a_session_does_not_write_for_another_origin(api: Harness, header: dict[str, str]) -> None:
    browser = await api.browser("operator")
    csrf = await csrf_of(api)
    assert await post_event(browser, **{"X-CSRF-Token": csrf}, **header) == 403
    assert await post_event(browser, **{"X-CSRF-Token": csrf, "Origin": "http://127.0.0.1:4180"}) == 202


async def test_every_answer_carries_the_protective_headers(api: Harness) -> None:
    async with api.client() as client:
        for path in ("/health", "/nothing", "/sign-in"):
            answer = await client.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_defect_of_ours_is_a_500_that_tells_nothing_of_the_inside(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("penstock.services.api.decisions.shown", broken)
    monkeypatch.setattr("penstock.services.api.decisions.fetch", broken)
    transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {await api.key('viewer')}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        answer = await client.get("/api/v1/namespaces/default/flows")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "hunter2" not in answer.text
