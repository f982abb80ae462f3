"""Limits on real servers. Time is moved by hand: the script takes the clock it is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from tests.support.scale import scaled

from penstock.automations.durations import Rate
from penstock.services.limits import Limits, LimitSpec, LimitsUnavailableError, Taken

SECOND = 1_000_000
START = 1_790_000_000 * SECOND
TEN = LimitSpec("erp", Rate(10, SECOND), burst=10)
ONE = LimitSpec("ops", Rate(1, SECOND))


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        return self.now


@dataclass
class Gcra:
    """The model: one limit, without a queue."""

    limit: LimitSpec
    tat: int = 0
    taken: list[int] = field(default_factory=list)

    def take(self, now: int) -> int:
        """The wait in microseconds; 0: taken."""
        tat = max(self.tat, now)
        wait = tat - (self.limit.burst - 1) * self.limit.interval - now
        if wait <= 0:
            self.tat = tat + self.limit.interval
            self.taken.append(now)
        return max(0, wait)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def limits(redis: Redis, clock: Clock) -> Limits:
    return Limits(redis, clock=clock)


async def test_a_burst_passes_at_once_and_the_next_one_waits_for_one_interval(limits: Limits) -> None:
    taken = [await limits.take([TEN], holder=f"run-{n}") for n in range(11)]
    assert [each.allowed for each in taken] == [True] * 10 + [False]
    assert taken[10] == Taken(False, timedelta(milliseconds=100), "erp")


async def test_thirty_waiters_get_times_of_their_own_and_start_in_order(limits: Limits, clock: Clock) -> None:
    due: list[tuple[int, str]] = []
    for n in range(30):
        taken = await limits.take([TEN], holder=f"run-{n:02}")
        due.append((clock.now + taken.wait // timedelta(microseconds=1), f"run-{n:02}"))
    assert len({at for at, _ in due[10:]}) == 20
    started = [name for at, name in due if at == START]
    for at, name in sorted(due[10:]):
        clock.now = at
        assert (await limits.take([TEN], holder=name)).allowed
        started.append(name)
    assert started == [f"run-{n:02}" for n in range(30)]
    assert clock.now == START + 2 * SECOND


async def test_a_newcomer_does_not_overtake_a_waiter_whose_time_has_come(limits: Limits, clock: Clock) -> None:
    await limits.take([ONE], holder="first")
    await limits.take([ONE], holder="waiter")
    clock.now += SECOND
    assert not (await limits.take([ONE], holder="newcomer")).allowed
    assert (await limits.take([ONE], holder="waiter")).allowed


async def test_a_waiter_that_vanished_is_forgotten_after_its_time_and_a_grace(limits: Limits, clock: Clock) -> None:
    await limits.take([ONE], holder="first")
    await limits.take([ONE], holder="vanished")
    clock.now += 4 * SECOND
    assert not (await limits.take([ONE], holder="next")).allowed
    clock.now += 1
    assert (await limits.take([ONE], holder="next")).allowed


async def test_who_is_forgotten_stands_in_nobodys_way(limits: Limits, clock: Clock) -> None:
    await limits.take([ONE], holder="first")
    await limits.take([ONE], holder="cancelled")
    await limits.forget("cancelled")
    clock.now += SECOND
    assert (await limits.take([ONE], holder="next")).allowed


async def test_several_limits_are_taken_all_or_none(limits: Limits, clock: Clock) -> None:
    await limits.take([ONE], holder="first")
    refused = await limits.take([TEN, ONE], holder="both")
    assert (refused.allowed, refused.limit) == (False, "ops")
    assert [(await limits.take([TEN], holder=f"run-{n}")).allowed for n in range(10)] == [True] * 10
    clock.now += SECOND
    assert (await limits.take([TEN, ONE], holder="both")).allowed


async def test_who_waits_for_one_limit_does_not_stand_in_the_way_at_another(limits: Limits, clock: Clock) -> None:
    other = LimitSpec("other", Rate(1, SECOND))
    slow = LimitSpec("slow", Rate(1, 100 * SECOND))
    await limits.take([slow], holder="first")
    await limits.take([other, slow], holder="both")
    for n in range(5):
        assert (await limits.take([other], holder=f"run-{n}")).allowed
        clock.now += SECOND


async def test_a_holder_comes_back_to_its_old_place(limits: Limits, clock: Clock) -> None:
    slow = LimitSpec("slow", Rate(1, 10 * SECOND))
    await limits.take([slow], holder="x")
    await limits.take([ONE], holder="x")
    await limits.take([ONE, slow], holder="early")  # waits for both
    clock.now += SECOND
    await limits.take([ONE, slow], holder="early")  # `ops` is free now, `slow` is not: lets others pass
    assert (await limits.take([ONE], holder="late-1")).allowed
    await limits.take([ONE], holder="late-2")
    clock.now = START + 10 * SECOND
    assert (await limits.take([ONE, slow], holder="early")).allowed


async def test_unlimited_asks_nobody(clock: Clock) -> None:
    away = Limits(Redis.from_url("redis://127.0.0.1:1/0"))
    assert (await away.take([LimitSpec("free", None)], holder="run")).allowed
    assert (await away.take([], holder="run")).allowed


async def test_a_closed_limit_raises_and_an_open_one_lets_through_while_redis_is_away() -> None:
    away = Limits(Redis.from_url("redis://127.0.0.1:1/0"))
    with pytest.raises(LimitsUnavailableError, match="erp"):
        await away.take([TEN], holder="run")
    with pytest.raises(LimitsUnavailableError):
        await away.forget("run")
    open_ = LimitSpec("soft", Rate(1, SECOND), on_outage="open")
    assert (await away.take([open_], holder="run")).allowed
    with pytest.raises(LimitsUnavailableError, match="erp"):
        await away.take([open_, TEN], holder="run")


async def test_a_server_that_lost_its_data_grants_nothing_for_one_period(
    redis: Redis, limits: Limits, clock: Clock
) -> None:
    assert (await limits.take([TEN], holder="run-1")).allowed
    await redis.flushdb()
    lost = await limits.take([TEN], holder="run-2")
    assert (lost.allowed, lost.wait) == (False, timedelta(seconds=1))
    clock.now += SECOND
    assert (await limits.take([TEN], holder="run-2")).allowed


async def test_namespaces_do_not_share_limits(redis: Redis, limits: Limits, clock: Clock) -> None:
    await limits.take([ONE], holder="run-1")
    assert (await Limits(redis, "other", clock=clock).take([ONE], holder="run-2")).allowed


async def test_no_key_is_left_for_ever(redis: Redis, limits: Limits) -> None:
    for n in range(12):
        await limits.take([TEN, ONE], holder=f"run-{n}")
    forever = [key async for key in redis.scan_iter() if await redis.ttl(key) == -1]
    assert forever == [b"penstock:{default}:limits"]


async def test_the_servers_own_clock_and_many_askers_at_once_never_exceed_the_rate(redis: Redis) -> None:
    limits = Limits(redis)
    burst = LimitSpec("real", Rate(1, 60 * SECOND), burst=7)
    taken = await asyncio.gather(*(limits.take([burst], holder=f"run-{n}") for n in range(60)))
    assert sum(each.allowed for each in taken) == 7


SPECS = st.builds(
    lambda count, per, burst: LimitSpec("erp", Rate(count, per), burst),
    st.integers(1, 20),
    st.integers(1_000, 10 * SECOND),
    st.integers(1, 20),
)
STEPS = st.lists(st.integers(0, 3 * SECOND), max_size=40)
MANY = settings(
    max_examples=scaled(200, at_least=30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@MANY
@given(limit=SPECS, steps=STEPS)
def test_without_a_queue_it_is_the_model(limits_redis_url: str, limit: LimitSpec, steps: list[int]) -> None:
    async def scenario() -> None:
        clock, model = Clock(), Gcra(limit)
        async with Redis.from_url(limits_redis_url) as client:
            await client.flushdb()
            limits = Limits(client, clock=clock)
            for step in steps:
                clock.now += step
                taken = await limits.take([limit], holder="x")
                await limits.forget("x")
                assert taken.wait == timedelta(microseconds=model.take(clock.now))

    asyncio.run(scenario())


@MANY
@given(limit=SPECS, moves=st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 9)), max_size=60))
def test_never_more_than_rate_and_burst_in_any_period_and_waiters_in_order(
    limits_redis_url: str, limit: LimitSpec, moves: list[tuple[int, int]]
) -> None:
    async def scenario() -> None:
        clock, granted, came = Clock(), list[int](), dict[int, int]()
        async with Redis.from_url(limits_redis_url) as client:
            await client.flushdb()
            limits = Limits(client, clock=clock, grace=timedelta(days=1))
            for turn, (step, holder) in enumerate(moves):
                clock.now += step
                taken = await limits.take([limit], holder=f"run-{holder}")
                if not taken.allowed:
                    came.setdefault(holder, turn)
                    continue
                granted.append(clock.now)
                ahead = [other for other, since in came.items() if since < came.get(holder, turn) and other != holder]
                assert len(ahead) < limit.burst  # it may pass only where enough is left for those ahead
                came.pop(holder, None)
        assert limit.rate is not None
        for first in granted:
            inside = [at for at in granted if first <= at <= first + limit.rate.per]
            assert len(inside) <= limit.rate.count + limit.burst

    asyncio.run(scenario())
