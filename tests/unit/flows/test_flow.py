"""Flows and tasks as plain Python, with no server at all."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from penstock.flows import (
    FlowDefinitionError,
    FlowTimeoutError,
    NotInRunError,
    ParameterError,
    TaskTimeoutError,
    exponential,
    flow,
    get_logger,
    get_run_context,
    task,
)


class Truck(BaseModel):
    name: str
    tons: float = 7.5


@task
def double(number: int) -> int:
    return number * 2


@task(name="Triple it", retries=1)
async def triple(number: int) -> int:
    return number * 3


@flow
def send_truck(truck: Truck, times: Annotated[int, Field(ge=1)] = 1, at: datetime | None = None) -> str:
    """Send a truck on its way."""
    return f"{truck.name} {double(times)}"


@flow(name="both", retries=2, retry_delay=[1, 5], timeout=60, limits=["erp"], tags=("a", "b"))
async def sends_both(number: int) -> list[Any]:
    return [double(number), *await asyncio.gather(triple(number), triple(number)), send_truck(Truck(name="t"))]


def test_a_sync_flow_is_called_like_any_function() -> None:
    assert send_truck(Truck(name="t"), times=2) == "t 4"


async def test_an_async_flow_is_awaited() -> None:
    assert await sends_both(2) == [4, 6, 6, "t 2"]


def test_names_come_from_the_function_with_dashes() -> None:
    assert (send_truck.name, sends_both.name, double.name, triple.name) == ("send-truck", "both", "double", "Triple it")
    assert send_truck.description == "Send a truck on its way."
    assert (sends_both.limits, sends_both.tags, sends_both.policy.waits()) == (("erp",), ("a", "b"), [1, 5])


def test_parameters_are_converted_and_defaults_filled_in() -> None:
    found = send_truck.validate_parameters({"truck": {"name": "t"}, "at": "2026-03-01T10:00:00Z"})
    assert found == {"truck": Truck(name="t"), "times": 1, "at": datetime(2026, 3, 1, 10, tzinfo=UTC)}


def test_every_wrong_parameter_is_named() -> None:
    with pytest.raises(ParameterError) as refusal:
        send_truck.validate_parameters({"times": 0, "tuck": 1})
    assert [problem.split(" ")[0] for problem in refusal.value.problems] == ["truck", "times:", "tuck"]
    assert "it takes: truck, times, at" in str(refusal.value)


def test_a_call_with_wrong_parameters_is_refused() -> None:
    with pytest.raises(ParameterError, match="tons: Input should be a valid number"):
        send_truck({"name": "t", "tons": "many"})  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ParameterError, match="unexpected keyword argument"):
        send_truck(Truck(name="t"), truk=1)  # type: ignore[call-arg]  # the point of the test


def test_the_schema_shows_names_types_and_defaults() -> None:
    schema = send_truck.parameter_schema()
    assert schema["required"] == ["truck"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["times"] == {"default": 1, "minimum": 1, "title": "Times", "type": "integer"}


def test_parameters_may_have_any_name_and_be_positional_only() -> None:
    @flow
    def odd(copy: int, /, schema: str, _id: int = 3, *, model_config: bool = True) -> list[Any]:
        return [copy, schema, _id, model_config]

    assert odd(1, "s", model_config=False) == [1, "s", 3, False]
    assert set(odd.parameter_schema()["properties"]) == {"copy", "schema", "_id", "model_config"}


def test_a_mutable_default_is_not_shared() -> None:
    @flow
    def collects(into: list[int] = []) -> list[int]:  # noqa: B006  # the point of the test
        into.append(1)
        return into

    assert collects() == collects() == [1]


def test_a_failing_task_is_tried_again() -> None:
    tried: list[int] = []

    @task(retries=2)
    def unsteady() -> int:
        tried.append(1)
        if len(tried) < 3:
            raise OSError("not yet")
        return len(tried)

    assert unsteady() == 3


async def test_a_task_that_keeps_failing_raises_its_last_error() -> None:
    tried: list[int] = []

    @task(retries=2)
    async def hopeless() -> None:
        tried.append(1)
        raise OSError(f"try {len(tried)}")

    with pytest.raises(OSError, match="try 3"):
        await hopeless()


def test_a_flow_is_retried_with_its_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)

    @flow(retries=3, retry_delay=exponential(1, jitter=0))
    def hopeless() -> None:
        raise OSError("never")

    with pytest.raises(OSError, match="never"):
        hopeless()
    assert waited == [1, 2, 4]


async def test_an_async_task_is_cancelled_at_its_timeout() -> None:
    cleaned_up: list[bool] = []

    @task(timeout=0.01)
    async def sleeps() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    with pytest.raises(TaskTimeoutError, match=r"'sleeps' took longer than its timeout of 0.01 s"):
        await sleeps()
    assert cleaned_up == [True]


def test_a_sync_task_fails_at_its_timeout_although_its_thread_goes_on() -> None:
    release, ended = threading.Event(), threading.Event()

    @task(timeout=0.01)
    def blocks() -> None:
        release.wait()
        ended.set()

    with pytest.raises(TaskTimeoutError, match="'blocks'"):
        blocks()
    assert not ended.is_set()
    release.set()
    assert ended.wait(5)


def test_a_sync_flow_has_a_timeout_too() -> None:
    release = threading.Event()

    @flow(timeout=0.01)
    def blocks() -> None:
        release.wait()

    with pytest.raises(FlowTimeoutError, match="flow 'blocks'"):
        blocks()
    release.set()


async def test_a_timeout_of_the_task_itself_is_its_own_error() -> None:
    @task(timeout=60)
    async def raises() -> None:
        raise TimeoutError("theirs")

    with pytest.raises(TimeoutError, match="theirs"):
        await raises()


def test_a_task_with_a_timeout_knows_its_run() -> None:
    @task(timeout=60)
    def named() -> str | None:
        return get_run_context().task

    @flow
    def asks() -> list[str | None]:
        return [named(), get_run_context().task, get_run_context().flow]

    assert asks() == ["named", None, "asks"]


def test_outside_of_a_run_there_is_no_context_but_a_logger() -> None:
    with pytest.raises(NotInRunError):
        get_run_context()
    get_logger().info("works")


def test_the_logger_of_a_run_names_it(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def speaks() -> str:
        get_logger().warning("hot")
        return get_run_context().run_id

    run_id = speaks()
    [record] = caplog.records
    assert (record.getMessage(), record.__dict__["flow"], record.__dict__["run_id"]) == ("hot", "speaks", run_id)


def test_what_can_never_run_is_refused_where_it_is_declared() -> None:
    def takes_anything(*args: int) -> None: ...

    for wrong in (
        lambda: flow(takes_anything),
        lambda: flow(retry=1)(test_the_schema_shows_names_types_and_defaults),  # type: ignore[call-overload]  # dito
        lambda: flow("name"),  # type: ignore[call-overload]  # the point of the test
        lambda: flow(lambda: None),
        lambda: flow(name="two words")(test_the_schema_shows_names_types_and_defaults),
        lambda: flow(limits="erp")(test_the_schema_shows_names_types_and_defaults),
        lambda: task(name="")(test_the_schema_shows_names_types_and_defaults),
        lambda: task(int),
    ):
        with pytest.raises(FlowDefinitionError):
            wrong()


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    @flow
    def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # the point of the test

    with pytest.raises(FlowDefinitionError, match="Nowhere"):
        unknown.parameter_schema()
