"""Leases are renewed together, and let go in time when they cannot be. Spans are small here; the rules are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from penstock.services.database import DatabaseUnavailableError
from penstock.services.worker.leases import Leases

SHORT = timedelta(milliseconds=150)
LONG = timedelta(hours=1)


class Database:
    """Answers renewals: `ours` are kept, None: it is away."""

    def __init__(self, ours: set[str] | None) -> None:
        self.ours = ours
        self.asked: list[dict[str, int]] = []

    async def renew(self, held: Mapping[str, int]) -> set[str]:
        self.asked.append(dict(held))
        if self.ours is None:
            raise DatabaseUnavailableError("away")
        return self.ours


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_what_is_not_ours_any_more_is_lost_once_and_the_rest_stays() -> None:
    database, lost = Database({"a"}), list[str]()
    leases = Leases(LONG, database.renew)
    for name in "ab":
        leases.hold(name, 7, now(), lambda reason, name=name: lost.append(name))  # type: ignore[misc]  # a default
    await leases.renew_now()
    await leases.renew_now()
    assert (lost, database.asked) == (["b"], [{"a": 7, "b": 7}, {"a": 7}])


async def test_a_lease_that_cannot_be_renewed_is_let_go_at_two_thirds_of_its_time() -> None:
    database, told, since = Database(None), asyncio.Event(), now()
    leases = Leases(SHORT, database.renew)
    leases.hold("a", 1, since, lambda reason: told.set())
    renewing = asyncio.create_task(leases.run())
    await told.wait()
    assert now() - since >= SHORT.total_seconds() * 2 / 3 - 0.002
    assert database.asked
    renewing.cancel()


async def test_a_claim_that_took_longer_than_its_lease_lasts_is_lost_at_once() -> None:
    told = asyncio.Event()
    Leases(LONG, Database(set()).renew).hold("a", 1, now() - 3_600, lambda reason: told.set())
    await asyncio.wait_for(told.wait(), 5)


async def test_the_lease_of_an_earlier_claim_does_not_release_the_later_one() -> None:
    database, lost = Database(set()), list[str]()
    leases = Leases(LONG, database.renew)
    leases.hold("a", 1, now(), lost.append)
    leases.hold("a", 2, now(), lost.append)
    leases.release("a", 1)
    await leases.renew_now()
    assert (database.asked, lost) == ([{"a": 2}], ["somebody else has claimed or moved the run"])


async def test_nothing_is_lost_after_its_release() -> None:
    database, lost = Database(set()), list[str]()
    leases = Leases(LONG, database.renew)
    leases.hold("a", 1, now() - 3_599, lost.append)
    leases.release("a", 1)
    await leases.renew_now()
    assert lost == []


async def test_the_holder_is_told_at_each_renewal_until_when_its_process_may_go_on() -> None:
    database, kept = Database({"a"}), list[float]()
    leases, since = Leases(LONG, database.renew), now()
    leases.hold("a", 1, since, lambda reason: None, kept.append)
    await leases.renew_now()
    assert kept[0] == since + LONG.total_seconds() * 5 / 6
    assert kept[0] <= kept[1] <= now() + LONG.total_seconds() * 5 / 6
