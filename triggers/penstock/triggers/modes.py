"""`mode`: what becomes of a firing while others of its automation and key have not ended.

Pure, and shared by the dispatcher, which asks the database what has not ended, and by the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.triggers.forms import Mode


@dataclass(frozen=True, slots=True)
class Unended:
    """A firing that has not ended.  id: whatever names it.  waiting: it has not started."""

    id: str
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """What to do with a new firing: start it, let it wait for its turn, or drop it; and which others end for it.

    replaced: ids; running ones are cancelled, waiting ones never start.
    reason: of a drop, and of what replaced ones are told; begins with "mode".
    """

    act: Literal["start", "wait", "drop"]
    replaced: tuple[str, ...] = ()
    reason: str = ""


def admit(mode: Mode, unended: Sequence[Unended]) -> Admission:
    """Where a new firing goes.  unended: of its automation and key, in order of their decisions."""
    if mode == "parallel" or not unended:
        return Admission("start")
    if mode == "single":
        return Admission("drop", reason="mode: single, and one before it has not ended")
    if mode == "queued":
        return Admission("wait")
    if mode == "restart":
        return Admission("start", tuple(each.id for each in unended), "mode: restart, and a newer one came")
    waiting = tuple(each.id for each in unended if each.waiting)
    return Admission("wait", waiting, "mode: keep_latest, and a newer one came" if waiting else "")


def next_to_start(mode: Mode, unended: Sequence[Unended]) -> str | None:
    """Who starts now that one has ended: the first that waits, once none runs; None where nobody does."""
    if mode == "parallel" or any(not each.waiting for each in unended):
        return None
    return unended[0].id if unended else None
