"""Log lines are stored in order, none twice, and the rest at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from penstock.services.database import StaleEpochError
from penstock.services.runs import LogLine
from penstock.services.worker import logs
from penstock.services.worker.logs import LogBatch


class Store:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def write(self, lines: Sequence[LogLine]) -> None:
        self.batches.append([each.line for each in lines])

    @property
    def lines(self) -> list[str]:
        return [line for batch in self.batches for line in batch]


async def test_all_lines_are_stored_in_order_in_few_batches() -> None:
    store = Store()
    batch = LogBatch(store.write)
    for n in range(250):
        batch.add(LogLine(n, "INFO", str(n)))
    await batch.close()
    assert store.lines == [str(n) for n in range(250)]
    assert len(store.batches) <= 3


async def test_a_run_that_says_nothing_stores_nothing() -> None:
    store = Store()
    await LogBatch(store.write).close()
    assert store.batches == []


async def test_lines_beyond_what_may_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CEILING", 3)
    store = Store()
    batch = LogBatch(store.write)
    for n in range(5):
        batch.add(LogLine(n, "INFO", str(n)))
    await batch.close()
    assert store.lines == ["0", "1", "2", "2 lines came faster than they could be stored, and are lost"]


async def test_a_write_that_is_refused_is_told_at_the_end() -> None:
    async def refuse(lines: Sequence[LogLine]) -> None:
        raise StaleEpochError("not ours")

    batch = LogBatch(refuse)
    batch.add(LogLine(1, "INFO", "late"))
    with pytest.raises(StaleEpochError):
        await batch.close()


async def test_an_abandoned_log_writes_nothing() -> None:
    store = Store()
    batch = LogBatch(store.write)
    batch.add(LogLine(1, "INFO", "late"))
    batch.abandon()
    batch.abandon()
    await asyncio.sleep(0)
    assert store.batches == []
