"""Reports that run by the clock, and when somebody asks for one."""

from __future__ import annotations

from typing import Literal

from penstock.flows import emit, flow, task

SALES = {"north": 120, "south": 80}
STOCK = {"bolts": 40, "nuts": 3}


@task(retries=3, retry_delay=1)
def sales_of(region: str, period: str) -> int:
    """Days and months differ by their number of days here."""
    return SALES[region] * (30 if period == "month" else 1)


@flow
def report(region: str, period: Literal["day", "month"] = "day") -> dict[str, int]:
    regions = list(SALES) if region == "all" else [region]
    return {each: sales_of(each, period) for each in regions}


@flow
def check_stock(minimum: int = 10) -> list[str]:
    low = [part for part, count in STOCK.items() if count < minimum]
    for part in low:
        emit("stock.low", {"part": part, "count": STOCK[part]}, subject=f"part/{part}")
    return low
