"""Requests become events, and a delivery that is sent again is the same event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.automations.compiling import compile_template
from penstock.automations.scopes import WEBHOOK_SCOPE
from penstock.automations.templates import RenderError, render_json
from penstock.events.errors import InvalidEventError
from penstock.events.webhooks import to_event

PUSH = json.dumps({"ref": "refs/heads/main", "repository": {"full_name": "ann/shop"}}).encode()
GITHUB = {"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e", "Content-Type": "application/json"}


def templates(**sources: str) -> dict[str, Any]:
    return {name: compile_template(source, WEBHOOK_SCOPE) for name, source in sources.items()}


def test_a_github_delivery_becomes_an_event_of_its_kind() -> None:
    event = to_event("repo", "github", GITHUB, PUSH)
    assert (event.type, event.source, event.subject) == (
        "github.push",
        "/webhooks/repo",
        "ann/shop",
    )
    assert event.data == json.loads(PUSH)


def test_the_action_of_a_github_delivery_is_part_of_its_type() -> None:
    body = json.dumps({"action": "opened", "issue": {}}).encode()
    assert to_event("repo", "github", {**GITHUB, "X-GitHub-Event": "issues"}, body).type == "github.issues.opened"


def test_github_may_send_forms() -> None:
    headers = {**GITHUB, "Content-Type": "application/x-www-form-urlencoded"}
    assert to_event("repo", "github", headers, b"payload=%7B%22ref%22%3A1%7D").data == {"ref": 1}


def test_a_request_that_is_sent_again_is_the_same_event() -> None:
    first, again = (to_event("orders", "hmac", {}, b'{"n":1}') for _ in range(2))
    other = to_event("orders", "hmac", {}, b'{"n":2}')
    elsewhere = to_event("returns", "hmac", {}, b'{"n":1}')
    assert first.key == again.key
    assert first.type == "webhook.orders"
    assert len({first.key, other.key, elsewhere.key}) == 3


@pytest.mark.parametrize(
    ("preset", "headers", "body", "identity"),
    [
        ("standard-webhooks", {"Webhook-Id": "msg_1"}, b"{}", "msg_1"),
        ("stripe", {}, b'{"id": "evt_1"}', "evt_1"),
    ],
)
def test_a_providers_own_identity_is_kept(preset: str, headers: dict[str, str], body: bytes, identity: str) -> None:
    assert to_event("w", preset, headers, body).id == identity


@pytest.mark.parametrize(("preset", "header"), [("hmac", "webhook-id"), ("github", "X-GitHub-Delivery")])
def test_a_captured_request_is_the_same_event_whatever_its_unsigned_headers_say(preset: str, header: str) -> None:
    first, again = (to_event("w", preset, {header: name}, b'{"n":1}') for name in ("a", "b"))
    assert first.key == again.key


def test_the_users_own_templates_win() -> None:
    template = templates(
        type="order.placed", id="{{ body.id }}", subject="order/{{ body.id }}", source="{{ headers['x-shop'] }}"
    )
    body = json.dumps({"id": 7}).encode()
    event = to_event("orders", "hmac", {"X-Shop": "/graz"}, body, template=template, render=render_json)
    assert (event.type, event.id, event.subject, event.source) == ("order.placed", "7", "order/7", "/graz")
    assert event.data == {"id": 7}


def test_data_may_be_a_tree_of_templates() -> None:
    template = {**templates(type="a.b"), "data": templates(total="{{ body.total }}"), "id": None}
    event = to_event("orders", "hmac", {}, b'{"total": 4.5, "noise": 1}', template=template, render=render_json)
    assert event.data == {"total": 4.5}


@pytest.mark.parametrize(
    ("headers", "body", "data"),
    [
        ({}, b"hello", "hello"),
        ({}, b"\xff", {"base64": "/w=="}),
        ({}, b"", ""),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1&b=&a=2", {"a": "1", "b": ""}),
    ],
)
def test_bodies_that_are_no_json_are_kept(headers: dict[str, str], body: bytes, data: Any) -> None:
    assert to_event("w", "hmac", headers, body).data == data


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/json", b"{"), ("application/x-www-form-urlencoded", b"payload={")]
)
def test_a_body_that_is_not_what_it_says_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidEventError):
        to_event("w", "hmac", {"content-type": content_type}, body)


def test_a_template_cannot_make_one_of_our_own_types() -> None:
    template = templates(type="{{ body.type }}")
    with pytest.raises(InvalidEventError, match="reserved"):
        to_event("w", "hmac", {}, b'{"type": "penstock.run.failed"}', template=template, render=render_json)


def test_a_template_that_comes_to_nothing_is_refused_with_its_attribute() -> None:
    template = templates(type="a.b", id="{{ body.id }}")
    with pytest.raises(InvalidEventError) as refused:
        to_event("w", "hmac", {}, b'{"id": ""}', template=template, render=render_json)
    assert refused.value.field == "id"
    with pytest.raises(RenderError):
        to_event("w", "hmac", {}, b"{}", template=template, render=render_json)
