"""Deployments as they are offered: the definition, beside the flow as it was loaded from the user's code.

The API never imports users' code. Whoever deploys does, checks parameters with the flow's own types, and sends what a
worker would register.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from penstock.automations.deployments import DeploymentModel
from penstock.automations.problems import did_you_mean
from penstock.flows.flow import Flow
from penstock.flows.load import Library, LoadedFlow, load_flows
from penstock.services.deployments import DeploymentError, FlowOffer, Offer
from penstock.services.versions import versions_of
from penstock.services.worker.child import flow_info
from penstock.services.worker.registry import options_of


def offers_of(deployments: Sequence[DeploymentModel], modules: Iterable[str]) -> list[Offer]:
    """Load the modules, and find each deployment's flow there.  Raises DeploymentError with all that is wrong."""
    library = load_flows(modules)
    found = [(model, find(library, model.flow)) for model in deployments]
    problems = [_unknown(model, library) for model, loaded in found if loaded is None]
    problems += [each for model, loaded in found if loaded is not None for each in problems_of(model, loaded.flow)]
    if problems:
        raise DeploymentError(problems)
    loaded_ones = [(model, loaded) for model, loaded in found if loaded is not None]
    versions = versions_of(loaded.flow.place for _, loaded in loaded_ones)
    return [Offer(model, flow_offer(loaded, versions[loaded.flow.place])) for model, loaded in loaded_ones]


def find(library: Library, name: str) -> LoadedFlow | None:
    """The flow of that name, or of that `module:name`, by its own name or its function's."""
    if name in library.flows:
        return library.flows[name]
    module, _, flow = name.rpartition(":")
    return next(
        (
            each
            for each in library.flows.values()
            if module in ("", each.module) and flow in (each.flow.name, each.flow.qualname)
        ),
        None,
    )


def flow_offer(loaded: LoadedFlow, version: str | None) -> FlowOffer:
    """What the API is told of a flow."""
    info = flow_info(loaded)
    return FlowOffer(info.name, info.module, info.parameters, options_of(info), version)


def problems_of(model: DeploymentModel, flow: Flow[..., Any]) -> list[str]:
    """What the flow's own types say of the parameters; with a schedule, none may be missing."""
    told = [f"deployment `{model.name}`: {each}" for each in flow.parameter_problems(model.parameters, complete=False)]
    for at, schedule in enumerate(model.schedules, 1):
        given = {**model.parameters, **schedule.parameters}
        told += [f"deployment `{model.name}`, schedule {at}: {each}" for each in flow.parameter_problems(given)]
    return list(dict.fromkeys(told))


def to_wire(offer: Offer) -> dict[str, Any]:
    """As the API takes it."""
    return {"definition": offer.model.model_dump(mode="json"), "flow": asdict(offer.flow)}


def model_of(definition: Mapping[str, Any]) -> DeploymentModel:
    """A definition that stands in no file.  Raises DeploymentError."""
    try:
        return DeploymentModel.model_validate(dict(definition))
    except ValidationError as error:
        found = error.errors(include_url=False)
        told = [f"`{'.'.join(map(str, each['loc']))}`: {each['msg']}" for each in found]
        raise DeploymentError([f"deployment {definition.get('name')!r}: {each}" for each in told]) from None


def _unknown(model: DeploymentModel, library: Library) -> str:
    hint = did_you_mean(model.flow, [*library.flows, *(f"{f.module}:{name}" for name, f in library.flows.items())])
    broken = "".join(f"; {problem}" for problem in library.problems)
    remedy = hint or "name its file under `flows:`"
    return f"deployment `{model.name}`: there is no flow `{model.flow}` ({remedy}){broken}"
