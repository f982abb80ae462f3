"""Flows and tasks that yield."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.journals import Bodies, Kept

from penstock.flows import FlowDefinitionError, Moment, State, flow, get_run_context, task

bodies = Bodies()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bodies.ran.clear()


@task
def pages(count: int) -> Iterator[str]:
    for number in range(count):
        yield bodies(f"page {number} of {get_run_context().task}")


@task
async def apages(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield bodies(f"page {number}")


@task
def read(page: str) -> int:
    return len(page)


@flow
def reads(count: int) -> list[str]:
    return [*pages(count), *pages(count)]


@flow
def yields(count: int) -> Iterator[int]:
    for page in pages(count):
        yield read.submit(page).result()


@flow
async def yields_later(count: int) -> AsyncIterator[str]:
    async for page in apages(count):
        yield page


def test_items_come_as_they_are_made() -> None:
    @flow
    def takes_one() -> str:
        return next(iter(pages(5)))

    assert takes_one() == "page 0 of pages"
    assert bodies.ran == ["page 0 of pages"]


async def test_async_generators_too() -> None:
    assert [page async for page in apages(2)] == ["page 0", "page 1"]
    assert [page async for page in yields_later(2)] == ["page 0", "page 1"]


def test_a_flow_may_yield() -> None:
    items = yields(2)
    assert next(items) == 15
    assert list(items) == [15]


def test_what_was_exhausted_is_replayed_as_it_was() -> None:
    first = Kept()
    found = first.run(reads, count=2)
    assert found == ["page 0 of pages", "page 1 of pages"] * 2
    second = first.again()
    assert (second.run(reads, count=2), len(bodies.ran), second.calls) == (found, 4, [])


def test_on_a_worker_a_generator_s_result_is_the_list_of_its_items() -> None:
    assert Kept().run(yields, count=2) == [15, 15]
    assert Kept().run(yields_later, count=2) == ["page 0", "page 1"]


def test_a_submitted_generator_gives_its_list() -> None:
    @flow
    def submits() -> object:
        return [pages.submit(1).result(), apages.submit(1).result(), read.map(pages.submit(2).result()).result()]

    assert submits() == [["page 0 of pages"], ["page 0"], [15, 15]]


def test_what_was_left_early_is_made_again() -> None:
    @flow
    def takes_one() -> str:
        return next(iter(pages(5)))

    first = Kept()
    first.run(takes_one)
    assert first.calls == []
    first.again().run(takes_one)
    assert len(bodies.ran) == 2


def test_a_generator_that_fails_is_told_and_runs_anew() -> None:
    told: list[Moment] = []

    @task(on_failure=told.append)
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    @flow
    def takes() -> list[int]:
        return list(fails())

    first = Kept()
    with pytest.raises(ValueError, match="torn"):
        first.run(takes)
    assert [(call.state, call.error) for call in first.calls] == [(State.FAILED, "ValueError: torn")]
    assert [moment.state for moment in told] == [State.FAILED]
    with pytest.raises(ValueError, match="torn"):
        first.again().run(takes)


def test_retries_and_timeouts_of_generators_are_refused() -> None:
    def yields_one() -> Iterator[int]:
        yield 1

    for wrong in ({"retries": 1}, {"timeout": 1}):
        with pytest.raises(FlowDefinitionError, match="generator"):
            task(**wrong)(yields_one)  # type: ignore[call-overload]  # the point of the test
