"""Leases: renewed together every third of their time; a run whose lease could not be renewed is let go in time.

The monotonic clock of this machine decides: at two thirds of a lease without a renewal the holder ends the run's
process, so that it has ended before the database lets somebody else claim the run. A holder that is itself stopped
cannot do that: the process is told until when the run is its holder's, and ends itself a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from penstock.events.errors import PenstockError

_log = structlog.get_logger()

Renew = Callable[[Mapping[str, int]], Awaitable[set[str]]]  # id → epoch; gives the ids that are still ours
Lost = Callable[[str], None]  # told why
Kept = Callable[[float], None]  # told until when, on the loop's clock

_LET_GO = 2 / 3  # of a lease: the holder ends the run's process
_TAKEN = 5 / 6  # of a lease: the process ends itself


@dataclass(slots=True)
class _Held:
    epoch: int
    lost: Lost
    kept: Kept
    watchdog: asyncio.TimerHandle


class Leases:
    """The leases of one worker. `run` renews them until cancelled; the watchdogs work without it."""

    def __init__(self, lease: timedelta, renew: Renew) -> None:
        self._seconds = lease.total_seconds()
        self._renew = renew
        self._held: dict[str, _Held] = {}

    def hold(self, run_id: str, epoch: int, since: float, lost: Lost, kept: Kept = lambda until: None) -> None:
        """Keep a lease. since: the loop's time before the claim was sent.  lost: called once when it is gone.

        kept: called now and at each renewal with the time at which the run's process has to end unless told again.
        """
        self._forget(run_id)
        self._held[run_id] = _Held(epoch, lost, kept, self._watch(run_id, epoch, since))
        kept(since + self._seconds * _TAKEN)

    def release(self, run_id: str, epoch: int) -> None:
        """Forget a lease; a later one of the same run stays."""
        held = self._held.get(run_id)
        if held is not None and held.epoch == epoch:
            self._forget(run_id)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            if self._held:
                await self.renew_now()

    async def renew_now(self) -> None:
        """One renewal of all leases; one that fails is tried again with the next."""
        since = asyncio.get_running_loop().time()
        sent = {run_id: held.epoch for run_id, held in self._held.items()}
        try:
            async with asyncio.timeout(self._seconds / 3):
                ours = await self._renew(sent)
        except (SQLAlchemyError, PenstockError, OSError, TimeoutError) as error:
            _log.warning("worker.leases_not_renewed", runs=len(sent), error=str(error))
            return
        for run_id, epoch in sent.items():
            held = self._held.get(run_id)
            if held is None or held.epoch != epoch:
                continue  # released meanwhile
            if run_id in ours:
                held.watchdog.cancel()
                held.watchdog = self._watch(run_id, epoch, since)
                held.kept(since + self._seconds * _TAKEN)
            else:
                self._lose(run_id, epoch, "somebody else has claimed or moved the run")

    def _watch(self, run_id: str, epoch: int, since: float) -> asyncio.TimerHandle:
        reason = "its lease could not be renewed in time"
        return asyncio.get_running_loop().call_at(since + self._seconds * _LET_GO, self._lose, run_id, epoch, reason)

    def _lose(self, run_id: str, epoch: int, reason: str) -> None:
        held = self._held.get(run_id)
        if held is not None and held.epoch == epoch:
            self._forget(run_id)
            held.lost(reason)

    def _forget(self, run_id: str) -> None:
        held = self._held.pop(run_id, None)
        if held is not None:
            held.watchdog.cancel()
