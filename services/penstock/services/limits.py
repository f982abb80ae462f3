"""Rates that hold over all processes, kept in Redis by its own clock.

One script call takes a permit of every limit that a holder names, or of none. Whoever has to wait is told for how long
and keeps its place: those who came later do not overtake it, and each is given a time of its own, so that a crowd does
not wake at one instant. In any span of a limit's period at most rate + burst permits are given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Literal, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.automations.durations import Rate
from penstock.automations.resources import Limit
from penstock.events.errors import PenstockError
from penstock.events.ids import new_id
from penstock.events.instants import Instant, microseconds
from penstock.services.cancellation import check_cancelled

GRACE = timedelta(seconds=3)  # a waiter that has not come back so long after its time is forgotten
_ANSWER_WITHIN = 2.0  # seconds

_TAKE = files("penstock.services").joinpath("limits.lua").read_text()
_FORGET = """
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':of:' .. ARGV[1])) do
  redis.call('ZREM', KEYS[1] .. ':queue:' .. name, ARGV[1])
  redis.call('ZREM', KEYS[1] .. ':until:' .. name, ARGV[1])
  redis.call('HDEL', KEYS[1] .. ':arrival:' .. name, ARGV[1])
end
return redis.call('DEL', KEYS[1] .. ':of:' .. ARGV[1])
"""


class LimitsUnavailableError(PenstockError):
    """Redis cannot be asked, and a limit is closed while it cannot (`on_outage: closed`): try again in a second."""

    def __init__(self, names: Sequence[str], reason: str) -> None:
        self.names = tuple(names)
        super().__init__(
            f"the limits {', '.join(names)} cannot be checked, Redis does not answer ({reason});"
            " start it, or set `on_outage: open` for limits that may be exceeded meanwhile"
        )


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One named limit.

    rate: None is unlimited.  burst: how many may come at once (>= 1).  on_outage: what holds while Redis is away.
    """

    name: str
    rate: Rate | None
    burst: int = 1
    on_outage: Literal["closed", "open"] = "closed"

    @staticmethod
    def of(limit: Limit) -> LimitSpec:
        """As a rule file says it."""
        return LimitSpec(limit.name, limit.rate, limit.burst, limit.on_outage)

    @property
    def interval(self) -> int:
        """Microseconds between two permits, rounded up so that the rate is never exceeded; 0 without a rate."""
        return 0 if self.rate is None else -(-self.rate.per // self.rate.count)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking.

    wait: when to ask again, zero if it was allowed.  limit: the name of the one that makes it wait, "" if none does.
    """

    allowed: bool
    wait: timedelta = timedelta(0)
    limit: str = ""


class Limits:
    """The limits of one namespace.  Safe to share among tasks."""

    def __init__(
        self,
        redis: Redis,
        namespace: str = "default",
        *,
        grace: timedelta = GRACE,
        clock: Callable[[], Instant] | None = None,
    ) -> None:
        """clock: instead of Redis's own, for tests that move time."""
        self._take = redis.register_script(_TAKE)
        self._forget = redis.register_script(_FORGET)
        self._key = f"penstock:{{{namespace}}}:limits"
        self._grace, self._clock = microseconds(grace), clock
        self._seen = ""  # the data set that the server had when it was last asked

    async def take(self, limits: Sequence[LimitSpec], *, holder: str) -> Taken:
        """One permit of each limit, or of none.

        holder: who asks; asking again under the same name keeps its place in the queue.
        Raises LimitsUnavailableError where Redis does not answer and one of the limits is closed then.
        """
        named = {limit.name: limit for limit in limits if limit.rate is not None}
        if not named:
            return Taken(True)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                answer = await self._take(keys=[self._key], args=self._arguments(holder, list(named.values())))
        except (RedisError, OSError, TimeoutError) as error:
            check_cancelled()
            return _without_redis(list(named.values()), error)
        check_cancelled()
        allowed, wait, blocking, seen = cast("tuple[int, int, int, bytes | str]", answer)
        self._seen = seen.decode() if isinstance(seen, bytes) else seen
        if allowed:
            return Taken(True)
        return Taken(False, timedelta(microseconds=int(wait)), list(named)[int(blocking) - 1])

    async def forget(self, holder: str) -> None:
        """It will not come back: whoever stands behind it moves up.  Raises LimitsUnavailableError."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await self._forget(keys=[self._key], args=[holder])
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsUnavailableError([f"that {holder} waits for"], repr(error)) from error

    def _arguments(self, holder: str, limits: Sequence[LimitSpec]) -> list[str | int]:
        now: str | int = "" if self._clock is None else self._clock()
        arguments: list[str | int] = [holder, now, self._seen, new_id(), self._grace]
        for limit in limits:
            period = limit.rate.per if limit.rate else 0
            arguments += [limit.name, limit.interval, (limit.burst - 1) * limit.interval, period]
        return arguments


def _without_redis(limits: Sequence[LimitSpec], error: BaseException) -> Taken:
    closed = [limit.name for limit in limits if limit.on_outage == "closed"]
    if closed:
        raise LimitsUnavailableError(closed, repr(error)) from error
    return Taken(True)
