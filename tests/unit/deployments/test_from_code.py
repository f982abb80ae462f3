"""What `flow.deploy` and `flow.serve` take, as penstock.yaml would say it."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from typing import Any

import pytest
from tests.support.command_line import Running

from penstock.flows import DeployError, deploying, flow
from penstock.services.database import tables
from penstock.services.deployments import DeploymentError
from penstock.services.serving import offer_of


@flow(tags=["trucks"])
def reroute(truck: str, day: date | None = None, stops: int = 1) -> str:
    return truck


def offered(**options: Any) -> Any:
    return offer_of(reroute, deploying.definition("nightly", options))  # type: ignore[arg-type]  # as a program may


def test_what_is_given_becomes_a_definition_as_json_has_it() -> None:
    schedules = ["0 3 * * *", {"every": timedelta(minutes=5), "parameters": {"stops": 2}}]
    parameters = {"truck": "7", "day": date(2026, 3, 1)}
    offer = offered(schedules=schedules, parameters=parameters, concurrency=2, tags=("a", "b"))
    assert offer.model.flow == f"{__name__}:reroute"
    assert offer.model.parameters == {"truck": "7", "day": "2026-03-01"}
    assert [each.cron or each.every for each in offer.model.schedules] == ["0 3 * * *", 300_000_000]
    assert (offer.model.concurrency.limit, offer.model.concurrency.when_full) == (2, "queue")
    assert (offer.flow.name, offer.flow.options["tags"]) == ("reroute", ["trucks"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tag": ["a"]}, "a deployment has no tag; there are: schedules, parameters"),
        ({"tags": "a"}, "tags='a': give a list"),
        ({"schedules": ["often"]}, "a cron line has 5 fields"),
        ({"parameters": {"stops": "many"}}, "stops: Input should be a valid integer"),
        ({"schedules": ["0 3 * * *"]}, "deployment `nightly`, schedule 1: truck is missing"),
        ({"concurrency": 0}, "concurrency.limit"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises((DeployError, DeploymentError)) as found:
        offered(**options)
    assert told in str(found.value)


async def test_serving_inside_of_a_running_loop_is_refused() -> None:
    with pytest.raises(DeployError, match="call it from sync code"):
        reroute.serve()


def test_without_the_servers_parts_deploying_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "penstock.services.serving", None)
    with pytest.raises(DeployError, match="penstock\\[server\\]"):
        reroute.deploy()


def test_a_flow_deploys_itself_through_the_api(running: Running) -> None:
    assert reroute.deploy(parameters={"truck": "7"}, schedules=["0 3 * * *"]) == "created"
    assert reroute.deploy(parameters={"truck": "7"}, schedules=["0 3 * * *"]) == "unchanged"
    assert reroute.deploy(parameters={"truck": "8"}) == "updated"

    async def read() -> list[str]:
        async with running.api.context.database.read() as connection:
            return [row.parameters for row in await connection.execute(tables.deployment.select())]

    assert running.do(read()) == ['{"truck": "8"}']
