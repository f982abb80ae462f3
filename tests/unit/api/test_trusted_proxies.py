"""A proxy that ends TLS says that a request came by https; only one that the settings name is believed."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError
from tests.support.fake_bus import FakeBus
from tests.support.served import served

from penstock.services.settings import Settings


async def sign_in(database_url: str, *, trusted: tuple[str, ...], origin: str | None = None) -> httpx.Response:
    """Sign in through a proxy on this machine, whose https the browser sees."""
    async with served(database_url, FakeBus(), trusted_proxies=trusted) as api:
        url, _, token = (await api.sign_in_url()).partition("?token=")
        host = httpx.URL(url).netloc.decode()
        headers = {"X-Forwarded-Proto": "https", "Origin": origin or f"https://{host}"}
        async with httpx.AsyncClient(trust_env=False) as browser:
            return await browser.post(url, data={"token": token}, headers=headers)


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8"])
async def test_a_trusted_proxy_makes_a_session_of_https(sqlite_url: str, trusted: str) -> None:
    answer = await sign_in(sqlite_url, trusted=(trusted,))
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-penstock=")
    assert "secure" in cookie.lower()


async def test_a_trusted_proxy_opens_no_door_to_other_origins(sqlite_url: str) -> None:
    assert (await sign_in(sqlite_url, trusted=("127.0.0.1",), origin="https://evil.example")).status_code == 403


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
async def test_nobody_else_is_believed(sqlite_url: str, trusted: tuple[str, ...]) -> None:
    answer = await sign_in(sqlite_url, trusted=trusted)
    assert answer.status_code == 403
    assert "another origin" in answer.text


def test_what_is_no_address_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="does not appear to be"):
        Settings(trusted_proxies="proxy.example")
    assert Settings(trusted_proxies="10.0.0.1, ::1").trusted_proxies == ("10.0.0.1", "::1")
