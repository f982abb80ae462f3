"""`make bench`: latencies, throughput, timers and recovery, each beside a floor that is measured in the same run.

Arguments choose among them. Sizes come from the environment: BENCH_EVENTS, BENCH_RULES (throughput), BENCH_KEYS,
BENCH_MATCHES (stateful), BENCH_TIMERS, BENCH_SECONDS (timers), BENCH_WARM (seconds for which the broker is used first).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from benchmarks.floor import floor_latencies, warm_up
from benchmarks.latency import Bench
from benchmarks.recovery import recovery
from benchmarks.report import Figure, percentile, report
from benchmarks.stateful import measure as measure_stateful
from benchmarks.throughput import engine_rate, floor_rate, publish, rules
from benchmarks.timers import floor_lateness, timer_lateness
from tests.support.fleet import Fleet, open_fleet
from tests.support.services.provide import provide_kafka, provide_postgres, provide_redis

from penstock.events import bus
from penstock.services.bus import connect, parse_address
from penstock.services.settings import Settings
from penstock.services.standins import StandIn

RATES = {1: 20, 50: 500, 200: 2_000}  # events a second: how many events
EVENTS = int(os.environ.get("BENCH_EVENTS", "600000"))  # for the throughput
RULES = tuple(int(n) for n in os.environ.get("BENCH_RULES", "1,100,10000").split(","))
KEYS = int(os.environ.get("BENCH_KEYS", "1000000"))  # live ones, of windows
MATCHES = int(os.environ.get("BENCH_MATCHES", "120000"))  # events for them
TIMERS = int(os.environ.get("BENCH_TIMERS", "1000"))  # a second
SECONDS = int(os.environ.get("BENCH_SECONDS", "20"))  # for so long
WARM = float(os.environ.get("BENCH_WARM", "15"))  # seconds
WITHIN = 3.0  # the aim for p50, in times of the floor


@asynccontextmanager
async def _fleet(urls: dict[str, str], create_database: object) -> AsyncIterator[Fleet]:
    """A fleet on a database and topics of its own."""
    assert callable(create_database)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        fresh = {**urls, "bus_url": f"{urls['bus_url']}?prefix=b{uuid4().hex[:8]}.", "database_url": create_database()}
        async with open_fleet(**fresh, folder=Path(folder)) as fleet:
            yield fleet


async def latencies(urls: dict[str, str], create_database: object) -> list[Figure]:
    """Both ways of an event, at each rate, beside the floor."""
    figures: list[Figure] = []
    async with StandIn() as standin, _fleet(urls, create_database) as fleet:
        bench = Bench(fleet, standin)
        await bench.start()
        await bench.run_latencies(20, 100)  # warm
        await bench.slack_latencies(20, 100)
        address = parse_address(fleet.environment["PENSTOCK_BUS_URL"])
        for name in ("floor.in", "floor.out"):
            await fleet.rig.context.bus.ensure_topic(name, 1)
        await floor_latencies(address.server, fleet.environment["PENSTOCK_DATABASE_URL"], 20, 50, address.prefix)
        for rate, count in RATES.items():
            floor = await floor_latencies(
                address.server, fleet.environment["PENSTOCK_DATABASE_URL"], rate, count, address.prefix
            )
            for what, measured in (
                ("run's first line", await bench.run_latencies(rate, count)),
                ("Slack call", await bench.slack_latencies(rate, count)),
            ):
                figures += _compared(f"emit → {what} at {rate}/s", measured, floor)
    return figures


def _compared(what: str, measured: list[float], floor: list[float]) -> list[Figure]:
    p50 = Figure(f"{what}, p50", "ms", percentile(measured, 0.5), percentile(floor, 0.5), WITHIN, True, False)
    p99 = Figure(f"{what}, p99", "ms", percentile(measured, 0.99), percentile(floor, 0.99), higher_is_better=False)
    return [p50, p99]


async def throughput(urls: dict[str, str], create_database: object) -> list[Figure]:
    """The engine on a backlog: one process with many and with few matches, and one on each core."""
    figures: list[Figure] = []
    for count in RULES:
        figures += await _throughput(urls, create_database, count, every=100, engines=1, goal=30_000)
    most = max(RULES)
    figures += await _throughput(urls, create_database, most, every=1_000, engines=1)
    return figures + await _throughput(urls, create_database, most, every=1_000, engines=2, goal=100_000)


async def _throughput(
    urls: dict[str, str], create_database: object, count: int, *, every: int, engines: int, goal: float | None = None
) -> list[Figure]:
    async with _fleet(urls, create_database) as fleet:
        await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
        await fleet.rig.apply(rules(count))
        await publish(fleet, EVENTS, count, every)
        floor = await floor_rate(fleet, EVENTS)
        rate = await engine_rate(fleet, EVENTS, engines)
    what = f"{engines} engine{'s' * (engines > 1)}, {count} rules, {100 / every:g} % match one"
    return [
        Figure(what, "events/s", rate.wall, floor, goal),
        Figure(f"{what}, by CPU time", "events/s", rate.cpu),
    ]


async def stateful(urls: dict[str, str], create_database: object) -> list[Figure]:
    """Windows of many live keys, and what the engine needs for them."""
    async with _fleet(urls, create_database) as fleet:
        found = await measure_stateful(fleet, KEYS, MATCHES)
    what = f"stateful matches, {KEYS} live keys"
    return [
        Figure(what, "matches/s", found.rate, found.floor, 6_000),
        Figure(f"{what}, CPU of the engine", "µs/match", found.cpu, higher_is_better=False),
        Figure(f"{what}, memory of the engine", "MiB", found.memory, higher_is_better=False),
    ]


async def timers(urls: dict[str, str], create_database: object) -> list[Figure]:
    """Deadlines at a steady rate, through an engine and through a bare heap."""
    async with _fleet(urls, create_database) as fleet:
        floor = await floor_lateness(fleet.environment["PENSTOCK_DATABASE_URL"], TIMERS, min(10, SECONDS))
        found = await timer_lateness(fleet, TIMERS, SECONDS)
    return [
        Figure(
            f"timer lateness at {TIMERS}/s, p{round(share * 100)}",
            "ms",
            percentile(found, share),
            percentile(floor, share),
            goal,
            higher_is_better=False,
        )
        for share, goal in ((0.5, None), (0.99, 500.0))
    ]


async def recoveries(urls: dict[str, str], create_database: object) -> list[Figure]:
    """Beside the lease, which nobody may cut short."""
    figures = []
    lease = Settings.model_fields["ownership_lease"].default.total_seconds()
    for engines, what in ((2, "one of two engines killed"), (1, "the only engine killed, started again at once")):
        async with _fleet(urls, create_database) as fleet:
            found = await recovery(fleet, engines)
        for name, value in (("first", found.first), ("last", found.last)):
            measure = f"{what}, until its {name} partition decides"
            figures.append(Figure(measure, "s", value, lease, higher_is_better=False))
    return figures


MEASURES = {
    "latency": latencies,
    "throughput": throughput,
    "stateful": stateful,
    "timers": timers,
    "recovery": recoveries,
}


async def _warm_up(urls: dict[str, str]) -> None:
    """No figure is of a broker's first seconds, neither ours nor a floor's."""
    bus_ = await connect(f"{urls['bus_url']}?prefix=warm.")
    try:
        await bus_.ensure_topic("up", 1)
        await warm_up(parse_address(urls["bus_url"]).server, WARM, "warm.up")
    finally:
        await bus_.close()


def main() -> int:
    """Run what is named on the command line; all of it without a name."""
    chosen = sys.argv[1:] or list(MEASURES)
    if unknown := set(chosen) - set(MEASURES):
        sys.exit(f"{', '.join(sorted(unknown))}: no such measure; there are {', '.join(MEASURES)}")
    with provide_kafka() as kafka, provide_postgres() as postgres, provide_redis() as redis:
        urls = {"bus_url": kafka.url, "redis_url": redis.url}
        asyncio.run(_warm_up(urls))
        figures: list[Figure] = []
        for name in chosen:
            figures += asyncio.run(MEASURES[name](urls, postgres.create_database))
            report("bench", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
