"""The ASGI application: the documented API on FastAPI, and before it the intake of events as a plain Starlette route.

FastAPI's own layers would cost an event more than everything else that is done for it.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.services.api import (
    access,
    approvals,
    dead_letters,
    decisions,
    deployments,
    events,
    health,
    hooks,
    pages,
    problems,
    rules,
    run_operations,
    runs,
    stream,
    timeline,
)
from penstock.services.api.guard import Guard
from penstock.services.api.publishing import GroupPublisher
from penstock.services.api.state import Api
from penstock.services.context import Context
from penstock.services.rule_files import RulesWatcher


def make_app(context: Context, publisher: GroupPublisher, watcher: RulesWatcher | None = None) -> ASGIApp:
    """The application behind its guard."""
    app = FastAPI(title="Penstock", version="1", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.api = Api(context, publisher, watcher or RulesWatcher(context))
    problems.install(app)
    for room in (health, hooks, approvals, runs, run_operations, decisions, timeline, rules, stream, dead_letters):
        app.include_router(room.router)
    for room in (access, pages):
        app.include_router(room.router)
    app.include_router(deployments.router)
    return Guard(_with_intake(app), database=context.database, settings=context.settings)


def _with_intake(app: FastAPI) -> ASGIApp:
    intake = Route("/events", events.post_events, methods=["POST"])

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/events":
            await app(scope, receive, send)
            return
        scope["app"] = app
        try:
            await intake.handle(scope, receive, send)
        except Exception as error:
            found = problems.explain(error)
            if found is None:
                raise
            await found.response()(scope, receive, send)

    return dispatch
