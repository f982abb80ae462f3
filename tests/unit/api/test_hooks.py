"""`POST /hooks/NAME`."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.support.api_harness import Harness

from penstock.events.bus import EVENTS
from penstock.events.signatures import sign
from penstock.services.rules import Applied, apply

SECRET = "s3cr3t"
RULES = """
webhooks:
  - name: orders
    verify: {preset: hmac, header: x-shop-signature, secret: "{{ secrets.ORDERS }}"}
    event: {type: order.placed, id: "{{ body.id }}", subject: "order/{{ body.id }}"}
  - {name: repo, verify: {preset: github, secret: "{{ secrets.GITHUB }}"}}
  - {name: unset, verify: {preset: github, secret: "{{ secrets.NOT_SET }}"}}
"""
PUSH = json.dumps({"ref": "main", "repository": {"full_name": "acme/shop"}}).encode()


@pytest.fixture
async def hooks(api: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setenv("PENSTOCK_SECRET_ORDERS", SECRET)
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", SECRET)
    assert isinstance(await apply(api.context, {"hooks.yaml": RULES}, "user/ann"), Applied)
    await api.context.rulebook.refresh()
    return api


async def post(api: Harness, name: str, body: bytes, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.client() as client:
        return await client.post(f"/hooks/{name}", content=body, headers={"content-type": "application/json"} | sent)


async def test_a_signed_delivery_is_an_event_as_the_rule_file_says(hooks: Harness) -> None:
    body = b'{"id": 17, "total": 3}'
    answer = await post(hooks, "orders", body, x_shop_signature=sign(SECRET, body))
    assert (answer.status_code, answer.content) == (202, b"")
    [record] = hooks.bus.records(EVENTS)
    event = json.loads(record.value)
    assert (event["type"], event["id"], event["subject"]) == ("order.placed", "17", "order/17")
    assert event["data"] == {"id": 17, "total": 3}


async def test_github_signs_in_its_own_way_and_a_redelivery_is_the_same_event(hooks: Harness) -> None:
    signed = {"x_hub_signature_256": "sha256=" + sign(SECRET, PUSH), "x_github_event": "push"}
    for delivery in ("d-1", "d-2"):  # the header is not signed: a replay may carry any
        assert (await post(hooks, "repo", PUSH, x_github_delivery=delivery, **signed)).status_code == 202
    first, second = (json.loads(record.value) for record in hooks.bus.records(EVENTS))
    assert (first["type"], first["subject"]) == ("github.push", "acme/shop")
    assert (first["source"], first["id"]) == (second["source"], second["id"])


@pytest.mark.parametrize(
    "signature", [None, "", "sha256=", "sha256=" + "0" * 64, "sha256=" + sign("wrong", PUSH), sign(SECRET, PUSH)]
)
async def test_what_does_not_verify_is_refused(hooks: Harness, signature: str | None) -> None:
    headers = {} if signature is None else {"x_hub_signature_256": signature}
    answer = await post(hooks, "repo", PUSH, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert SECRET not in answer.text
    assert hooks.bus.records(EVENTS) == []


async def test_one_changed_byte_of_the_body_is_refused(hooks: Harness) -> None:
    signature = "sha256=" + sign(SECRET, PUSH)
    answer = await post(hooks, "repo", PUSH.replace(b"main", b"mine"), x_hub_signature_256=signature)
    assert answer.status_code == 401


async def test_an_unknown_webhook_is_a_404_and_a_get_a_405(hooks: Harness) -> None:
    assert (await post(hooks, "none", b"{}")).status_code == 404
    async with hooks.client() as client:
        assert (await client.get("/hooks/orders")).status_code == 405


async def test_too_large_a_delivery_is_refused_before_it_is_verified(hooks: Harness) -> None:
    assert (await post(hooks, "repo", b"x" * ((1 << 20) + 1))).status_code == 413


async def test_a_secret_that_is_not_set_is_our_fault_and_not_told(hooks: Harness) -> None:
    answer = await post(hooks, "unset", PUSH, x_hub_signature_256="sha256=" + "0" * 64)
    assert answer.status_code == 503
    assert "NOT_SET" not in answer.text


async def test_a_verified_delivery_that_is_no_event_is_a_400(hooks: Harness) -> None:
    for body in (b"{", b'{"total": 3}', b'{"id": "a\\u0000b"}'):
        answer = await post(hooks, "orders", body, x_shop_signature=sign(SECRET, body))
        assert answer.status_code == 400, answer.text
    assert hooks.bus.records(EVENTS) == []


async def test_a_bus_that_is_away_means_503_so_that_the_sender_tries_again(hooks: Harness) -> None:
    hooks.bus.away = True
    body = b'{"id": 17}'
    assert (await post(hooks, "orders", body, x_shop_signature=sign(SECRET, body))).status_code == 503
