"""Group commit: one round at a time, in order, and each caller hears of its own records."""

from __future__ import annotations

import asyncio

import pytest

from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.errors import BusError
from penstock.services.bus.gathering import Failures, Gatherer, Round

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


class Server:
    """Holds every round until it is told to go on."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.failures: Failures = {}
        self.error: BaseException | None = None
        self.go = asyncio.Event()

    async def send(self, round_: Round) -> Failures:
        self.rounds.append(round_)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return self.failures


@pytest.fixture
def server() -> Server:
    return Server()


def record(value: bytes) -> Outgoing:
    return Outgoing("t", value)


async def begin(gatherer: Gatherer, *calls: tuple[TopicPartition, bytes]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(gatherer.publish([(where, record(value))])) for where, value in calls]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_round_goes_out_together_in_the_next(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=100)
    tasks = await begin(gatherer, (FIRST, b"1"))
    tasks += await begin(gatherer, (FIRST, b"2"), (SECOND, b"3"), (FIRST, b"4"))
    server.go.set()
    await asyncio.gather(*tasks)
    assert server.rounds == [
        {FIRST: [record(b"1")]},
        {FIRST: [record(b"2"), record(b"4")], SECOND: [record(b"3")]},
    ]


async def test_a_round_is_bounded(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=2)
    server.go.set()
    await asyncio.gather(*await begin(gatherer, *[(FIRST, b"%d" % number) for number in range(5)]))
    assert [len(round_[FIRST]) for round_ in server.rounds] == [2, 2, 1]


async def test_a_failed_partition_fails_its_own_callers_alone(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=100)
    server.failures = {SECOND: BusError("no")}
    server.go.set()
    results = await asyncio.gather(*await begin(gatherer, (FIRST, b"1"), (SECOND, b"2")), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], BusError)


async def test_a_round_that_fails_as_a_whole_is_heard_of_by_all_and_the_next_one_goes_on(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=100)
    server.error = BusError("away")
    server.go.set()
    results = await asyncio.gather(*await begin(gatherer, (FIRST, b"1"), (SECOND, b"2")), return_exceptions=True)
    assert [str(result) for result in results] == ["away", "away"]
    server.error = None
    await gatherer.publish([(FIRST, record(b"3"))])


async def test_a_caller_that_gives_up_disturbs_nobody(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=100)
    gone, stays = await begin(gatherer, (FIRST, b"1"), (FIRST, b"2"))
    gone.cancel()
    server.go.set()
    await stays
    await gatherer.drain()


async def test_draining_waits_for_what_is_under_way(server: Server) -> None:
    gatherer = Gatherer(server.send, limit=100)
    (task,) = await begin(gatherer, (FIRST, b"1"))
    draining = asyncio.create_task(gatherer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    server.go.set()
    await draining
    assert task.done()
