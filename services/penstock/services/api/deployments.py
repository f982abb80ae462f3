"""Deployments: made, listed, paused."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from penstock.automations import format_duration
from penstock.services import deployments, hints
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Shown, shown
from penstock.services.deployments import Change, DeploymentError, DeploymentNotFoundError, FlowOffer, Offer
from penstock.services.offers import model_of
from penstock.services.scheduler.due import Spec

router = APIRouter(
    prefix="/api/v1/namespaces/{ns}/deployments", tags=["deployments"], dependencies=[Depends(needs("viewer"))]
)


class OfferedFlow(BaseModel):
    """A flow as it was loaded from the user's code."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    module: str = Field(min_length=1, max_length=500)
    parameters: dict[str, Any] = Field(description="JSON Schema")
    options: dict[str, Any] = {}
    version: str | None = Field(None, max_length=200, description="the git commit of its folder")


class Offered(BaseModel):
    """One deployment."""

    model_config = ConfigDict(extra="forbid")

    definition: dict[str, Any] = Field(description="as under `deployments:` in penstock.yaml")
    flow: OfferedFlow


class Deploying(BaseModel):
    """Deployments to make or change, all of them or none."""

    model_config = ConfigDict(extra="forbid")

    deployments: list[Offered] = Field(max_length=1_000)
    origin: Literal["file", "code"] = "file"
    prune: bool = Field(False, description="remove those from files that are not among them")


@router.get("")
async def list_deployments(request: Request, ns: str) -> dict[str, list[Shown]]:
    """All deployments, by name."""
    found = await deployments.listed(api_of(request).context.database, ns)
    return {"deployments": [_shown(row) for row in found]}


@router.get("/{name}")
async def show_deployment(request: Request, ns: str, name: str) -> Shown:
    """One deployment with its schedules."""
    found = await deployments.listed(api_of(request).context.database, ns, name)
    if not found:
        raise not_found("deployment", name)
    return _shown(found[0])


@router.post("")
async def deploy(request: Request, ns: str, body: Deploying) -> dict[str, list[Shown]]:
    """Make and change deployments.  422: nothing was changed, `problems` says what is wrong."""
    identity, context = require(request, "operator", ns), api_of(request).context
    try:
        offers = [_offer(each) for each in body.deployments]
        changes = await deployments.deploy(
            context.database, ns, offers, actor=identity.actor, origin=body.origin, prune=body.prune
        )
    except DeploymentError as error:
        told = f"nothing was deployed: {error}"
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, told, problems=list(error.problems)) from None
    await context.hints.give(hints.FLOWS, hints.DEPLOYMENTS, hints.PLACES)
    return {"changes": [_change(each) for each in changes]}


@router.post("/{name}/pause")
async def pause(request: Request, ns: str, name: str) -> Shown:
    """Have its schedules start no runs."""
    return await _set_paused(request, ns, name, paused=True)


@router.post("/{name}/unpause")
async def unpause(request: Request, ns: str, name: str) -> Shown:
    """Have its schedules start runs again, from the next due time on."""
    return await _set_paused(request, ns, name, paused=False)


@router.delete("/{name}")
async def remove(request: Request, ns: str, name: str) -> Shown:
    """Remove it; its runs stay."""
    identity, context = require(request, "operator", ns), api_of(request).context
    try:
        change = await deployments.remove(context.database, ns, name, identity.actor)
    except DeploymentNotFoundError:
        raise not_found("deployment", name) from None
    await context.hints.give(hints.FLOWS, hints.DEPLOYMENTS, hints.PLACES)
    return _change(change)


async def _set_paused(request: Request, ns: str, name: str, *, paused: bool) -> Shown:
    identity, context = require(request, "operator", ns), api_of(request).context
    try:
        changed = await deployments.set_paused(context.database, ns, name, identity.actor, paused=paused)
    except DeploymentNotFoundError:
        raise not_found("deployment", name) from None
    return {"name": name, "paused": paused, "changed": changed}


def _offer(offered: Offered) -> Offer:
    return Offer(model_of(offered.definition), FlowOffer(**offered.flow.model_dump()))


def _shown(row: dict[str, Any]) -> Shown:
    """Without what is of the inside alone."""
    left_out = ("digest", "definition", "parameter_schema")
    found = shown({name: value for name, value in row.items() if name not in left_out})
    found["paused"] = bool(row["paused"])
    found["schedules"] = [_schedule(each) for each in row["schedules"]]
    return found


def _schedule(row: dict[str, Any]) -> Shown:
    kept, spec = shown({name: row[name] for name in ("parameters", "next_at")}), Spec.from_json(row["spec"])
    times = {"cron": spec.cron, "every": _duration(spec.every), "rrule": spec.rrule}
    said = {name: value for name, value in times.items() if value is not None}
    return {**said, "timezone": spec.timezone, "parameters": kept["parameters"], "next_at": kept["next_at"]}


def _duration(every: int | None) -> str | None:
    return None if every is None else format_duration(every)


def _change(change: Change) -> Shown:
    return asdict(change)
