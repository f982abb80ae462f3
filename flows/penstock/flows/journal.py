"""The journal of a run: which task calls are finished, and what they returned.

A call is named by (parent, task, digest of its bound arguments, ordinal among equal calls of that parent). The ordinal
is given when the call is made, not when it ends: calls gathered or submitted in one order are named alike in every
replay, in whatever order they finish. A finished call is recorded before the code behind it goes on; a run that is
given its records again returns them and does not run those bodies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.flows.results import digest_arguments
from penstock.flows.states import State

ROOT = ""  # the parent of calls that the flow itself makes


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One finished call.

    key: its name within the run.  result: JSON, "null" unless completed.  error: one line, or None.
    """

    key: str
    parent: str
    task: str
    state: State  # completed, failed or timed_out
    result: bytes
    started: Instant
    ended: Instant
    error: str | None = None


Record: TypeAlias = Callable[[TaskCall], "Future[None]"]


def call_key(parent: str, task: str, arguments: str, ordinal: int) -> str:
    """The name of a call: 32 hexadecimal digits.

    parent: the key of the enclosing call, or ROOT.  arguments: `digest_arguments` of the bound arguments, defaults
    included.  ordinal: how many equal calls (same parent, task, arguments) were made before, from 0.
    """
    return derived_id("call", parent, task, arguments, str(ordinal))


class Journal:
    """The calls of one run.

    recorded: key → JSON result of the completed calls of earlier tries; failed calls are not among them and run anew.
    record: takes a finished call and completes its future once the call is kept; it may be called from any thread.
    """

    def __init__(self, recorded: Mapping[str, bytes], record: Record) -> None:
        self._recorded = recorded
        self._record = record
        self._made: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._lock = Lock()

    def name_call(self, parent: str, task: str, arguments: Mapping[str, Any]) -> str:
        """Name the call that is being made now, and count it."""
        digest = digest_arguments(arguments)
        with self._lock:
            ordinal = self._made[parent, task, digest]
            self._made[parent, task, digest] = ordinal + 1
        return call_key(parent, task, digest, ordinal)

    def recorded(self, key: str) -> bytes | None:
        """The JSON result of a call that has been recorded, or None."""
        return self._recorded.get(key)

    def record(self, call: TaskCall) -> Future[None]:
        """Hand a finished call over; the code behind it must wait for the future."""
        return self._record(call)
