"""`sleep` in flows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.journals import Kept

from penstock.flows import FlowDefinitionError, Moment, Suspended, flow, sleep, sleep_sync, task, tries
from penstock.flows.context import entered


class Clock:
    """Time that passes when code sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1_000_000)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(tries, "now", lambda: found.now)
    monkeypatch.setattr(time, "sleep", found.sleep)
    monkeypatch.setattr(asyncio, "sleep", found.sleep_async)
    return found


paused: list[Moment] = []


@flow(on_pause=paused.append)
def naps() -> str:
    sleep_sync(timedelta(hours=1))
    return "awake"


@flow
async def naps_later() -> str:
    await sleep(2)
    await sleep(2)
    return "awake"


@task
def naps_within() -> str:
    return naps.fn()


def test_plain_python_just_waits(clock: Clock) -> None:
    assert (naps(), clock.slept) == ("awake", [3600])


def test_a_replay_waits_for_what_is_left(clock: Clock) -> None:
    first = Kept()
    assert first.run(naps_later) == "awake"
    assert len(first.calls) == 2
    clock.now -= 1_500_000
    assert first.again().run(naps_later) == "awake"
    assert clock.slept == [2, 2, 0, 1.5]


def test_where_it_may_a_long_sleep_leaves_the_process_and_is_over_when_it_is_replayed(clock: Clock) -> None:
    paused.clear()
    first = Kept()
    with entered(replace(first.context(), may_suspend=True)), pytest.raises(Suspended) as left:
        naps.call_body({})
    assert (left.value.until, clock.slept, [moment.state for moment in paused]) == (
        clock.now + 3_600_000_000,
        [],
        ["paused"],
    )
    clock.now += 3_600_000_000
    second = first.again()
    with entered(replace(second.context(), may_suspend=True)):
        assert naps.call_body({}) == "awake"


def test_tasks_and_short_sleeps_stay(clock: Clock) -> None:
    @flow
    def both() -> str:
        sleep_sync(5)
        return naps_within()

    with entered(replace(Kept().context(), may_suspend=True)):
        assert both.call_body({}) == "awake"
    assert clock.slept == [5, 3600]


def test_what_is_no_duration_is_refused() -> None:
    with pytest.raises(FlowDefinitionError, match="sleep=-1"):
        sleep_sync(-1)
