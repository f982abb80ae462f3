"""Rules: which revision is in force, and applying or checking another one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from penstock.automations import Problem
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal
from penstock.services.api.state import api_of
from penstock.services.api.views import Shown, fetch, shown
from penstock.services.database import tables
from penstock.services.rules import Refused, apply, check

router = APIRouter(prefix="/api/v1/namespaces/{ns}/rules", tags=["rules"], dependencies=[Depends(needs("viewer"))])


class RuleFiles(BaseModel):
    """Rule files, all that shall be in force."""

    model_config = ConfigDict(extra="forbid")

    files: dict[str, str] = Field(description="{name: text}")
    dry_run: bool = Field(False, description="only check them")


@router.get("")
async def show_rules(request: Request, ns: str) -> Shown:
    """The revision in force with its files, and what is wrong with the watched files."""
    api, row = api_of(request), tables.revision
    query = sa.select(row).where(row.c.namespace == ns).order_by(row.c.id.desc()).limit(1)
    found = await fetch(api.context.database, query)
    newest = shown(found[0]) if found else {"id": 0}
    watched = api.watcher.problems if ns == api.context.settings.namespace else ()
    return {"revision": newest["id"], **newest, "problems": listed(watched)}


@router.post("")
async def apply_rules(request: Request, ns: str, body: RuleFiles) -> Shown:
    """Apply files, or check them.  422: nothing was changed, `problems` says what is wrong where."""
    identity, context = require(request, "operator", ns), api_of(request).context
    if body.dry_run:
        found = await check(context, body.files, namespace=ns)
    else:
        found = await apply(context, body.files, identity.actor, namespace=ns)
    if isinstance(found, Refused):
        errors = sum(problem.severity == "error" for problem in found.problems)
        detail = f"the rule files have {errors} error{'s' if errors != 1 else ''}; nothing was changed"
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail, problems=listed(found.problems))
    return {"revision": found.revision, "changed": found.changed, "problems": listed(found.problems)}


def listed(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Problems as JSON."""
    return [asdict(problem) for problem in problems]
