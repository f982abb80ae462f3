"""The door: which hosts we answer for, who is asking, and which headers every answer carries.

Open to all are health, signed webhooks, the sign-in link and the style sheet. Everything else needs a key or a session.
A write with a session needs its CSRF token and our own origin; a write with a key does not, since no browser adds one.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.events.event import MAX_BODY
from penstock.services.api.bodies import bounded, lingering
from penstock.services.api.keys import Identity, Role, digest, find_key
from penstock.services.api.problems import Refusal, explain
from penstock.services.api.sessions import cookie_name, find_session
from penstock.services.database import Database
from penstock.services.settings import Settings

KEY_FILE = "owner.key"  # below the data directory, written by `penstock up`
KEY_CACHE = 5.0  # seconds for which a key is believed without looking again: a revoked one works that much longer
_KEYS_CACHED = 1_000
RULES_BODY = 16 << 20  # bytes of all rule files in one request
_PAGES = ("/approvals", "/sign-out")  # their forms carry the CSRF token as a field; the page checks it
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CSP = (
    b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # no-referrer would make browsers hide the Origin of our own forms
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _CSP),
    (b"cache-control", b"no-store"),
]
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Guard:
    """ASGI middleware; leaves the Identity in `request.state.identity` (None at open paths)."""

    def __init__(self, app: ASGIApp, *, database: Database, settings: Settings) -> None:
        self._app, self._database, self._settings = app, database, settings
        self._hosts = known_hosts(settings)
        self._known: dict[str, tuple[float, Identity]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        send = _with_headers(send, https=scope["scheme"] == "https")
        try:
            self._check_host(request)
            identity = None if is_open(scope["path"]) else await self._identify(request)
        except Exception as error:
            found = explain(error)
            if found is None:
                raise
            await found.response()(scope, receive, send)
            return
        if identity is None and not is_open(scope["path"]):
            await self._unknown(request)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, bounded(receive, _limit(scope["path"])), lingering(receive, send))

    def _check_host(self, request: Request) -> None:
        """A foreign name that resolves to this machine (DNS rebinding) must not reach us through a browser."""
        host = _host_name(request.headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"host {host!r} is not served here; set PENSTOCK_API_URL to our public address",
            )

    async def _identify(self, request: Request) -> Identity | None:
        key = _key_of(request)
        if key is not None:
            return await self._bearer(key)
        cookie = request.cookies.get(cookie_name(request.scope["scheme"] == "https"))
        identity = await find_session(self._database, cookie) if cookie else None
        if identity is not None and request.method not in _SAFE:
            check_origin(request)
            if not _is_form(request):
                check_csrf(identity, request.headers.get("x-csrf-token"))
        return identity

    def _unknown(self, request: Request) -> Response:
        """Nobody we know: people are shown where to sign in, programs get a 401 that says where a key comes from."""
        if _key_of(request) is not None:
            return _unauthorized("this key is not known here, or was revoked; check PENSTOCK_API_KEY").response()
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
        detail = f"needs a key: send `Authorization: Bearer pk_…` ({self._where_keys_are()})"
        return _unauthorized(detail).response()

    def _where_keys_are(self) -> str:
        """A path is told on the loopback alone."""
        file = self._settings.data_dir / KEY_FILE
        if is_loopback(self._settings.host) and file.is_file():
            return f"it stands in {file}; a browser signs in through the link that `penstock sign-in` prints"
        return "`penstock keys create` makes one; a browser signs in through the link that `penstock sign-in` prints"

    async def _bearer(self, key: str) -> Identity | None:
        now = time.monotonic()
        known = digest(key)
        until, identity = self._known.get(known, (0.0, None))
        if identity is not None and now < until:
            return identity
        found = await find_key(self._database, key)
        if found is None:
            self._known.pop(known, None)
            return None
        if len(self._known) >= _KEYS_CACHED:
            self._known.clear()
        self._known[known] = (now + KEY_CACHE, found)
        return found


def is_open(path: str) -> bool:
    """Whether a path is answered without an identity."""
    return path in {"/health", "/sign-in"} or path.startswith(("/health/", "/hooks/", "/static/"))


def identity_of(connection: HTTPConnection) -> Identity:
    """Who sends this request.  Only behind the guard."""
    found = connection.state.identity
    assert isinstance(found, Identity)  # noqa: S101 -- the guard lets nobody else through
    return found


def require(request: HTTPConnection, role: Role, namespace: str | None = None) -> Identity:
    """The identity, if it has `role` (in `namespace`).  Raises Refusal 403."""
    identity = identity_of(request)
    if namespace is not None and namespace != identity.namespace:
        raise Refusal(HTTPStatus.FORBIDDEN, f"{identity.actor} has no role in namespace {namespace!r}")
    if not identity.may(role):
        raise Refusal(HTTPStatus.FORBIDDEN, f"{identity.actor} is no {role}; ask an admin for that role", role=role)
    return identity


def needs(role: Role) -> Callable[[Request], Awaitable[Identity]]:
    """A FastAPI dependency: the identity, with `role` in the namespace of the path."""

    async def check(request: Request) -> Identity:
        return require(request, role, request.path_params.get("ns"))

    return check


def check_csrf(identity: Identity, token: str | None) -> None:
    """Raises Refusal 403 unless the session's own token came along."""
    if identity.csrf is not None and not hmac.compare_digest(identity.csrf.encode(), (token or "").encode()):
        raise Refusal(
            HTTPStatus.FORBIDDEN, "the CSRF token is missing or not this session's; reload the page, try again"
        )


def check_origin(request: Request) -> None:
    """Raises Refusal 403 for a request that another site's page has sent."""
    origin = request.headers.get("origin")
    if origin is None:
        foreign = request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
    else:
        sent, ours = urlsplit(origin), request.url
        foreign = (sent.scheme, sent.netloc) != (ours.scheme, ours.netloc)
    if foreign:
        raise Refusal(HTTPStatus.FORBIDDEN, f"a write from another origin ({origin}) is not taken with a session")


def known_hosts(settings: Settings) -> frozenset[str] | None:
    """The names we answer to; None (any) where HTTP was told to listen beyond loopback and no address was named."""
    public = urlsplit(settings.api_url).hostname
    if is_loopback(settings.host):
        return _LOOPBACK | {settings.host} | ({public} if public else set())
    return frozenset({public, settings.host} | _LOOPBACK) if public else None


def is_loopback(host: str) -> bool:
    """Whether a name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _limit(path: str) -> int:
    return RULES_BODY if path.startswith("/api/") and path.endswith("/rules") else MAX_BODY


def _host_name(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_form(request: Request) -> bool:
    return request.url.path.startswith(_PAGES) and not request.headers.get("content-type", "").startswith(
        "application/json"
    )


def _key_of(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _unauthorized(detail: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def _with_headers(send: Send, *, https: bool) -> Send:
    extra = [*_HEADERS, _HSTS] if https else _HEADERS

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message["headers"] = given + [header for header in extra if header[0] not in names]
        await send(message)

    return sent
