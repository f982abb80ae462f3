"""Signing in and out: a one-time link shows a form, its button makes the session. A GET changes nothing."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from penstock.services.api.guard import check_csrf, check_origin, identity_of, require
from penstock.services.api.keys import SIGN_IN_LIFETIME, create_sign_in
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.rendering import page, static_file
from penstock.services.api.sessions import LIFETIME, cookie_name, sign_in, sign_out
from penstock.services.api.state import api_of
from penstock.services.api.views import Shown

router = APIRouter()
_STATIC_AGE = "max-age=3600"


@router.get("/sign-in", include_in_schema=False)
async def sign_in_page(request: Request, token: str = "") -> HTMLResponse:
    """The button behind a sign-in link; without a link, how to get one."""
    return page(request, "sign_in.html", token=token, refused=False)


@router.post("/sign-in", include_in_schema=False)
async def spend_link(request: Request) -> Response:
    """Make a session of a link that has not been used."""
    check_origin(request)
    form = await request.form(max_files=0, max_fields=4)
    cookie = await sign_in(api_of(request).context.database, str(form.get("token", "")))
    if cookie is None:
        return page(request, "sign_in.html", status=HTTPStatus.FORBIDDEN, token="", refused=True)
    answer = RedirectResponse("/approvals", HTTPStatus.SEE_OTHER)
    https = request.url.scheme == "https"
    age = LIFETIME // 1_000_000
    answer.set_cookie(cookie_name(https), cookie, age, path="/", secure=https, httponly=True, samesite="lax")
    return answer


@router.post("/sign-out", include_in_schema=False)
async def leave(request: Request) -> Response:
    """End the session."""
    identity = identity_of(request)
    form = await request.form(max_files=0, max_fields=4)
    check_csrf(identity, str(form.get("csrf", "")))
    name = cookie_name(request.url.scheme == "https")
    await sign_out(api_of(request).context.database, request.cookies.get(name, ""), identity)
    answer = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(name, path="/", secure=request.url.scheme == "https", httponly=True, samesite="lax")
    return answer


@router.post("/api/v1/namespaces/{ns}/sign-in-links", tags=["access"], status_code=HTTPStatus.CREATED)
async def make_link(request: Request, ns: str) -> Shown:
    """A one-time link for the bearer of this key: `/sign-in?token=…`. A session cannot make another one of itself."""
    identity = require(request, "viewer", ns)
    if identity.csrf is not None:
        raise Refusal(HTTPStatus.FORBIDDEN, "a sign-in link needs the key itself, not a session of it")
    database = api_of(request).context.database
    token = await create_sign_in(database, identity.key_id, namespace=ns, by=identity.actor)
    return {"token": token, "path": f"/sign-in?token={token}", "expires_in": SIGN_IN_LIFETIME // 1_000_000}


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """The style sheet and the icon, ours alone."""
    found = static_file(name)
    if found is None:
        raise not_found("file", name)
    body, media_type = found
    return Response(body, media_type=media_type, headers={"Cache-Control": _STATIC_AGE})
