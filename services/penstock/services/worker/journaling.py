"""What the runs of a worker write most often, each kind in batches: finished calls, beginnings and ends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from penstock.services.database import Database
from penstock.services.run_steps import Step, take_steps
from penstock.services.runs import Entry, record_entries, stale
from penstock.services.worker.batches import Batches


def journal_of(database: Database) -> Batches[Entry]:
    """Finished calls.  `put` raises StaleEpochError for a run that is not held under its epoch any more."""
    return Batches(partial(_record, database))


def steps_of(database: Database) -> Batches[Step]:
    """Beginnings and ends.  `put` raises NotAsKnownError where a run is not as its claim has left it."""
    return Batches(partial(_take, database))


async def _record(database: Database, entries: Sequence[Entry]) -> Sequence[Exception | None]:
    kept = await record_entries(database, entries)
    return [None if (each.run_id, each.epoch) in kept else stale(each.run_id, each.epoch) for each in entries]


async def _take(database: Database, steps: Sequence[Step]) -> Sequence[Exception | None]:
    await take_steps(database, steps)
    return [None] * len(steps)
