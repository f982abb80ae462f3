"""What is allowed in a rule and hardly ever meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.automations import models, resources
from penstock.automations.documents import Document
from penstock.automations.problems import Path, Problem
from penstock.automations.templates import Template


def warnings(model: models.AutomationModel, document: Document, path: Path) -> list[Problem]:
    """Of one rule without errors; path: where it stands."""
    found = []
    if model.when.within is not None and model.when.count == 1:
        message, hint = "`within` changes nothing without `count`", "add e.g. `count: 3`, or remove `within`"
        found.append(document.problem((*path, "when", "within"), message, hint, at="key", severity="warning"))
    for section, steps in (("then", model.then), ("on_error", model.on_error)):
        for index, step in enumerate(steps):
            if isinstance(step, models.Emit) and matches_type(model.when.event, step.emit.type):
                message = f"`{model.name}` may trigger itself: it emits `{step.emit.type}`, and waits for it"
                place = (*path, section, index, "emit", "type")
                found.append(document.problem(place, message, "choose another type", severity="warning"))
    return found


def matches_type(wanted: Iterable[str], type_: str) -> bool:
    """Whether one of the types of an `event` is this one; `*` is any run of characters."""
    return any(re.fullmatch(".*".join(map(re.escape, each.split("*"))), type_, re.DOTALL) for each in wanted)


def warnings_of_channel(channel: resources.Channel, document: Document, path: Path) -> list[Problem]:
    """A token that stands in the file is read by everybody who reads the file."""
    found = []
    for kind in ("slack", "sms"):
        settings = getattr(channel, kind)
        token: Template | None = settings.token if settings is not None else None
        if token is not None and not token.secrets:
            message, hint = "the token stands here for everybody to read", "write `{{ secrets.NAME }}`"
            found.append(document.problem((*path, kind, "token"), message, hint, severity="warning"))
    return found
