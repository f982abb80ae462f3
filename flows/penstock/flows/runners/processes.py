"""Bodies run in processes beside the flow's: for tasks that compute."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.flows.errors import RunnerError
from penstock.flows.runners.threads import check_workers

if TYPE_CHECKING:
    from penstock.flows.step import Step


@dataclass(frozen=True, slots=True)
class ProcessRunner:
    """Processes are started afresh (never forked: a flow has threads) and live as long as the flow call.

    max_workers: processes; by default as many as there are processors.
    """

    max_workers: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.max_workers)

    def open(self) -> ProcessCrew:
        return ProcessCrew(self.max_workers or os.cpu_count() or 1)


class ProcessCrew:
    """A pool of processes."""

    def __init__(self, threads: int) -> None:
        try:
            import penstock.flows.runners.parcels as parcels
        except ImportError:
            raise RunnerError('ProcessRunner needs cloudpickle: install it, or "penstock[server]"') from None
        self.threads, self._parcels = threads, parcels
        self._pool = ProcessPoolExecutor(threads, mp_context=multiprocessing.get_context("spawn"))

    def run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parcel = self._parcels.make_parcel(step, args, kwargs)
        try:
            answer = self._pool.submit(self._parcels.open_parcel, parcel).result()
        except BrokenProcessPool:
            raise RunnerError(
                f"a process that ran task {step.name!r}, or one beside it, died (killed, out of memory, os._exit);"
                " with its pool, all bodies that were in it are lost"
            ) from None
        return self._parcels.read_answer(answer)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
