"""What the rooms of the API share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from penstock.services.api.publishing import GroupPublisher
from penstock.services.context import Context
from penstock.services.rule_files import RulesWatcher


@dataclass(frozen=True, slots=True)
class Api:
    """One running API."""

    context: Context
    publisher: GroupPublisher
    watcher: RulesWatcher


def api_of(connection: HTTPConnection) -> Api:
    """The API that serves this request."""
    found = connection.app.state.api
    assert isinstance(found, Api)  # noqa: S101 -- set where the app is made
    return found
