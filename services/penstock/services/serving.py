"""The server's side of `flow.deploy` and `flow.serve`; `penstock.flows` finds it by this module's name."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from penstock.flows.errors import DeployError
from penstock.flows.flow import Flow
from penstock.flows.load import LoadedFlow
from penstock.services import deployments, hints
from penstock.services.cli.client import connect
from penstock.services.cli.service import schema_ready
from penstock.services.context import Context
from penstock.services.deployments import DeploymentError, Offer
from penstock.services.offers import flow_offer, model_of, problems_of, to_wire
from penstock.services.processes import configure_logging, run_until_signalled
from penstock.services.project import load_settings
from penstock.services.settings import Settings
from penstock.services.versions import version_of
from penstock.services.wiring import open_context, run_services
from penstock.services.worker.presence import tried

_LAST_WORD = 5.0  # seconds to pause the schedules when serving ends


def deploy(flow: Flow[..., Any], definition: Mapping[str, Any]) -> str:
    """Through the API; see Flow.deploy.  Raises DeploymentError, CommandError."""
    body = {"deployments": [to_wire(offer_of(flow, definition))], "origin": "code"}
    return str(connect().post("deployments", body)["changes"][0]["what"])


def serve(flow: Flow[..., Any], definition: Mapping[str, Any]) -> None:
    """See Flow.serve.  Raises DeployError, DeploymentError."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise DeployError("serve() runs an event loop of its own until it is stopped; call it from sync code")
    offer = offer_of(flow, definition)
    settings = load_settings(flows=(str(_file_of(flow)),), pool=offer.model.pool)
    configure_logging(settings.log_level, json=settings.log_json)
    run_until_signalled(join(settings, offer) if settings.database_url else alone(settings, offer))


def offer_of(flow: Flow[..., Any], definition: Mapping[str, Any]) -> Offer:
    """The flow as the server is told of it.  Raises DeploymentError."""
    file = _file_of(flow)
    module = file.stem if flow.module == "__main__" else flow.module
    model = model_of({**definition, "flow": f"{module}:{flow.name}"})
    model = model_of(
        model.model_dump(mode="json")
    )  # as JSON has it: a program may have given dates, or numbers of its own
    if problems := problems_of(model, flow):
        raise DeploymentError(problems)
    return Offer(model, flow_offer(LoadedFlow(flow, module, flow.parameter_schema()), version_of(file.parent)))


@asynccontextmanager
async def serving(context: Context, *, offer: Offer) -> AsyncIterator[None]:
    """Deployed while it lasts; afterwards its schedules are paused."""
    name, namespace = offer.model.name, context.settings.namespace
    set_paused = partial(deployments.set_paused, context.database, namespace, name, f"serve/{context.instance}")

    async def pause() -> None:
        async with asyncio.timeout(_LAST_WORD):
            await set_paused(paused=True)

    actor = f"serve/{context.instance}"
    await deployments.deploy(context.database, namespace, [offer], actor=actor, origin="code")
    await set_paused(paused=offer.model.paused)  # it was paused when it was served last
    await context.hints.give(hints.DEPLOYMENTS, hints.FLOWS)
    _say(f"serving {name}: Ctrl-C stops it, and pauses its schedules")
    try:
        yield
    finally:
        await tried("serving.schedules_not_paused", pause)


async def alone(settings: Settings, offer: Offer) -> None:
    """Serve as a whole Penstock, as `penstock up` is, until cancelled."""
    from penstock.services.cli.up import up  # with the API and all that it needs; a worker alone starts sooner

    await up(settings, around=partial(serving, offer=offer))


async def join(settings: Settings, offer: Offer) -> None:
    """Serve as a worker of the Penstock that the settings name, until cancelled."""
    async with open_context(settings) as context:
        await schema_ready(context.database)
        async with serving(context, offer=offer):
            await run_services(context, ["worker"], started=lambda *_: None, restart=True)


def _file_of(flow: Flow[..., Any]) -> Path:
    """Where its code stands: workers import it from there.  Raises DeployError."""
    found = inspect.getsourcefile(inspect.unwrap(flow.fn))
    if found is None or not Path(found).is_file():
        raise DeployError(f"flow {flow.name!r} stands in no file, and a worker imports it from one; write it into one")
    return Path(found).resolve()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
