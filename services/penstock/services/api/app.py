"""The ASGI application: the documented API on FastAPI, the intake of events as a plain route before it."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from penstock.services.api import (
    access,
    approvals,
    dead_letters,
    decisions,
    events,
    health,
    hooks,
    pages,
    problems,
    rules,
    runs,
    stream,
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
    app.router.routes.insert(0, Route("/events", events.post_events, methods=["POST"]))
    for room in (health, hooks, approvals, runs, decisions, rules, stream, dead_letters, access, pages):
        app.include_router(room.router)
    return Guard(app, database=context.database, settings=context.settings)
