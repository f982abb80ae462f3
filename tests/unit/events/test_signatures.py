"""Signatures of webhooks, against the providers' own published examples and libraries."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from penstock.events.instants import SECOND
from penstock.events.signatures import PRESETS, EmptySecretError, SignatureError, sign, verify

NOW = 1_700_000_000 * SECOND
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def mac(secret: str | bytes, message: bytes) -> bytes:
    return hmac.new(secret.encode() if isinstance(secret, str) else secret, message, hashlib.sha256).digest()


def headers_of(preset: str, secret: str, body: bytes, seconds: int = NOW // SECOND) -> dict[str, str]:
    """What the provider would send."""
    stamp = str(seconds)
    if preset == "hmac":
        return {"X-Signature": mac(secret, body).hex()}
    if preset == "github":
        return {"X-Hub-Signature-256": "sha256=" + mac(secret, body).hex()}
    if preset == "stripe":
        return {"Stripe-Signature": f"t={stamp},v1={mac(secret, stamp.encode() + b'.' + body).hex()},v0=ignored"}
    if preset == "slack":
        signature = "v0=" + mac(secret, f"v0:{stamp}:".encode() + body).hex()
        return {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": stamp}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(mac(key, f"msg_1.{stamp}.".encode() + body)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": f"v1a,x v1,{signature}"}


def secret_of(preset: str) -> str:
    return STANDARD_SECRET if preset == "standard-webhooks" else "s3cret"


def test_githubs_own_example_verifies() -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verify("github", "It's a Secret to Everybody", {"x-hub-signature-256": signature}, b"Hello, World!", now=NOW)


def test_the_standard_webhooks_example_verifies() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verify("standard-webhooks", STANDARD_SECRET, headers, b'{"test": 2432232314}', now=1614265330 * SECOND)


@given(body=st.text())
def test_what_slacks_own_library_signs_verifies(body: str) -> None:
    stamp = str(NOW // SECOND)
    signature = SignatureVerifier("s3cret").generate_signature(timestamp=stamp, body=body)
    headers = {"X-Slack-Signature": signature or "", "X-Slack-Request-Timestamp": stamp}
    verify("slack", "s3cret", headers, body.encode(), now=NOW)


@pytest.mark.parametrize("preset", list(PRESETS))
@given(body=st.binary(max_size=200))
def test_every_preset_takes_what_its_provider_sends_and_nothing_else(preset: str, body: bytes) -> None:
    secret = secret_of(preset)
    headers = headers_of(preset, secret, body)
    verify(preset, secret, headers, body, now=NOW)
    other = STANDARD_SECRET[:-1] + "x" if preset == "standard-webhooks" else secret + "x"
    for wrong in ((other, headers, body), (secret, headers, body + b" "), (secret, {}, body)):
        with pytest.raises(SignatureError):
            verify(preset, *wrong, now=NOW)


@pytest.mark.parametrize("preset", ["stripe", "slack", "standard-webhooks"])
@pytest.mark.parametrize(("off", "taken"), [(-300, True), (300, True), (-301, False), (301, False)])
def test_a_stale_timestamp_is_refused_on_either_side(preset: str, off: int, taken: bool) -> None:
    secret = secret_of(preset)
    headers = headers_of(preset, secret, b"{}", NOW // SECOND + off)
    if taken:
        verify(preset, secret, headers, b"{}", now=NOW)
    else:
        with pytest.raises(SignatureError, match="replay"):
            verify(preset, secret, headers, b"{}", now=NOW)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("secret", ["", "  "])
def test_an_empty_secret_verifies_nothing(preset: str, secret: str) -> None:
    with pytest.raises(EmptySecretError):
        verify(preset, secret, {"x-signature": sign("", b"")}, b"", now=NOW)


@pytest.mark.parametrize(
    "value", ["sha256=abc", "x" * 64, "", "ä", base64.b64encode(b"short").decode(), "t=,v1=", "v1,", ","]
)
@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_malformed_signature_is_refused(preset: str, value: str) -> None:
    headers = {PRESETS[preset].header: value, "x-slack-request-timestamp": "1", "webhook-timestamp": "1"}
    with pytest.raises(SignatureError):
        verify(preset, secret_of(preset), headers, b"", now=NOW)


def test_the_generic_preset_takes_base64_another_header_and_a_prefix() -> None:
    digest = base64.b64encode(mac("s", b"body")).decode()
    verify("hmac", "s", {"X-Shop-Hmac": digest}, b"body", now=NOW, header="x-shop-hmac")
    verify("hmac", "s", {"X-Sign": "sha256=" + sign("s", b"body")}, b"body", now=NOW, header="x-sign", prefix="sha256=")
    with pytest.raises(SignatureError, match="begin with"):
        verify("hmac", "s", {"X-Sign": sign("s", b"body")}, b"body", now=NOW, header="x-sign", prefix="sha256=")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_no_error_tells_the_secret_or_the_right_signature(preset: str) -> None:
    secret = secret_of(preset)
    headers = headers_of(preset, secret, b"one")
    with pytest.raises(SignatureError) as refused:
        verify(preset, secret, headers, b"two", now=NOW)
    for shown in (secret, sign(secret, b"two"), *headers_of(preset, secret, b"two").values()):
        if len(shown) > 12:
            assert shown not in str(refused.value)
