"""`make bench`: latencies and throughput, each beside a floor that is measured in the same run."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from benchmarks.floor import floor_latencies
from benchmarks.latency import Bench
from benchmarks.report import Figure, percentile, report
from benchmarks.throughput import engine_rate, publish, rules
from tests.support.fleet import Fleet, open_fleet
from tests.support.services.provide import provide_kafka, provide_postgres, provide_redis

from penstock.events import bus
from penstock.services.bus import parse_address
from penstock.services.standins import StandIn

RATES = {1: 20, 50: 500, 200: 2_000}  # events a second: how many events
EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))  # for the throughput
RULES = tuple(int(n) for n in os.environ.get("BENCH_RULES", "1,100,10000").split(","))
WITHIN = 3.0  # the aim for p50, in times of the floor
THROUGHPUT = 30_000.0  # events a second


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
    """The engine alone, on a backlog."""
    figures = []
    for count in RULES:
        async with _fleet(urls, create_database) as fleet:
            await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
            await fleet.rig.apply(rules(count))
            await publish(fleet, EVENTS, count)
            rate = await engine_rate(fleet, EVENTS)
            figures.append(Figure(f"engine, {count} rules, 1 % match one", "events/s", rate, goal=THROUGHPUT))
    return figures


def main() -> int:
    """Run what is named on the command line: latency, throughput; both without."""
    chosen = sys.argv[1:] or ["latency", "throughput"]
    with provide_kafka() as kafka, provide_postgres() as postgres, provide_redis() as redis:
        urls = {"bus_url": kafka.url, "redis_url": redis.url}
        figures: list[Figure] = []
        if "latency" in chosen:
            figures += asyncio.run(latencies(urls, postgres.create_database))
        if "throughput" in chosen:
            figures += asyncio.run(throughput(urls, postgres.create_database))
    report("bench", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
