"""Signatures of webhooks: HMAC-SHA256 over the raw body, as each provider writes it. One table, one verifier.

`verify` returns or raises SignatureError. No text here holds a secret, nor the signature that would have been right.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.events.errors import PenstockError
from penstock.events.instants import SECOND, Instant

TOLERANCE = 300 * SECOND  # how far a signed timestamp may lie from our clock, either way


class SignatureError(PenstockError):
    """A request is not signed as it should be; its body must not be used."""


class EmptySecretError(SignatureError):
    """The secret is empty: everybody could sign."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request claims: the message that was signed, its signatures (any one may hold), when (seconds)."""

    message: bytes
    signatures: tuple[bytes, ...]
    timestamp: int | None = None


Headers = Mapping[str, str]  # names in lower case
Reader = Callable[[Headers, bytes, str, str], Signed]  # headers, body, name of the header, prefix


@dataclass(frozen=True, slots=True)
class Preset:
    """How one provider signs.  key: the bytes of the secret."""

    header: str
    read: Reader
    prefix: str = ""
    key: Callable[[str], bytes] = str.encode


def verify(
    preset: str,
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: Instant,
    header: str | None = None,
    prefix: str | None = None,
    tolerance: int = TOLERANCE,
) -> None:
    """Check a request.

    preset: one of PRESETS.  header, prefix: instead of the preset's (for `hmac`).  now: our clock.  tolerance:
    microseconds.  Raises SignatureError; LookupError for an unknown preset.
    """
    rule = PRESETS[preset]
    if not secret.strip():
        raise EmptySecretError("the webhook's secret is empty; set one, or nobody may call it")
    name = (header or rule.header).lower()
    given = {each.lower(): value for each, value in headers.items()}
    if not given.get(name, "").strip():
        raise SignatureError(f"the header {name!r} is missing: the request is not signed")
    signed = rule.read(given, body, name, rule.prefix if prefix is None else prefix)
    expected = hmac.new(rule.key(secret), signed.message, hashlib.sha256).digest()
    # Every signature is compared, in constant time: how long it takes tells nothing.
    matching = [hmac.compare_digest(expected, each) for each in signed.signatures]
    if not any(matching):
        raise SignatureError(f"the signature in {name!r} does not fit the body and the secret")
    if signed.timestamp is not None and abs(now - signed.timestamp * SECOND) > tolerance:
        raise SignatureError(
            f"signed at {signed.timestamp}, more than {tolerance // SECOND} s from now: a replay, or a wrong clock"
        )


def sign(secret: str, body: bytes) -> str:
    """The hexadecimal HMAC-SHA256 of a body: what `hmac` expects, and `github` after "sha256="."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _plain(headers: Headers, body: bytes, name: str, prefix: str) -> Signed:
    """The signature alone, in hexadecimal or Base64, behind an optional prefix."""
    value = headers[name].strip()
    if prefix and not value.startswith(prefix):
        raise SignatureError(f"the header {name!r} does not begin with {prefix!r}")
    return Signed(body, _digests(value.removeprefix(prefix), name))


def _stripe(headers: Headers, body: bytes, name: str, prefix: str) -> Signed:
    """`t=SECONDS,v1=HEX[,v1=HEX]` over "SECONDS.BODY"."""
    pairs = [part.strip().partition("=")[::2] for part in headers[name].split(",")]
    stamp = next((value for key, value in pairs if key == "t"), "")
    found = tuple(digest for key, value in pairs if key == "v1" for digest in _digests(value, name))
    return Signed(stamp.encode() + b"." + body, found, _seconds(stamp, name))


def _slack(headers: Headers, body: bytes, name: str, prefix: str) -> Signed:
    """`v0=HEX` over "v0:SECONDS:BODY"."""
    stamp = headers.get("x-slack-request-timestamp", "")
    signed = _plain(headers, body, name, prefix)
    return Signed(b"v0:" + stamp.encode() + b":" + body, signed.signatures, _seconds(stamp, name))


def _standard(headers: Headers, body: bytes, name: str, prefix: str) -> Signed:
    """`v1,BASE64[ v1,BASE64]` over "ID.SECONDS.BODY" (standardwebhooks.com)."""
    stamp, message_id = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    values = [part.removeprefix(prefix) for part in headers[name].split() if part.startswith(prefix)]
    found = tuple(digest for value in values for digest in _digests(value, name))
    message = f"{message_id}.{stamp}.".encode() + body
    return Signed(message, found, _seconds(stamp, name))


def _standard_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise SignatureError("the secret of a Standard Webhook is Base64 after `whsec_`; this one is not") from None


def _digests(text: str, name: str) -> tuple[bytes, ...]:
    """The 32 bytes that a signature stands for: 64 hexadecimal digits, or Base64."""
    try:
        raw = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 32:
        raise SignatureError(f"the header {name!r} holds no HMAC-SHA256, neither in hexadecimal nor in Base64")
    return (raw,)


def _seconds(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise SignatureError(f"the timestamp that belongs to {name!r} is missing or no number of seconds")
    return int(text)


PRESETS: Mapping[str, Preset] = {
    "hmac": Preset("x-signature", _plain),
    "github": Preset("x-hub-signature-256", _plain, prefix="sha256="),
    "stripe": Preset("stripe-signature", _stripe),
    "slack": Preset("x-slack-signature", _slack, prefix="v0="),
    "standard-webhooks": Preset("webhook-signature", _standard, prefix="v1,", key=_standard_key),
}
