"""The journal of a run: which task calls are finished, and what they returned.

A call is named by (parent, task, digest of its bound arguments, ordinal among equal calls of that parent). The ordinal
is given when the call is made, not when it ends: calls gathered or submitted in one order are named alike in every
replay, in whatever order they finish. A finished call is recorded before the code behind it goes on; a run that is
given its records again returns them and does not run those bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.flows.graph import Origins
from penstock.flows.results import digest_arguments
from penstock.flows.sources import Past
from penstock.flows.states import State

ROOT = ""  # the parent of calls that the flow itself makes


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One finished call.

    key: its name within the run.  result: JSON, "null" unless completed.  error: one line, or None.
    label: as the task's `run_name` made it.  takes: keys of the calls whose results are among its arguments.
    source: digest of the code that ran.
    """

    key: str
    parent: str
    task: str
    state: State  # completed, failed or timed_out
    result: bytes
    started: Instant
    ended: Instant
    error: str | None = None
    label: str = ""
    takes: tuple[str, ...] = ()
    source: str = ""


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
    past: the code that the recorded calls came from, as far as it is known.
    """

    def __init__(self, recorded: Mapping[str, bytes], record: Record, past: Past | None = None) -> None:
        self.past = past or Past()
        self.origins = Origins()
        self._recorded = recorded
        self._record = record
        self._fresh: dict[str, bytes] = {}  # recorded in this try, by calls that are tried again within it
        self._tried_again: set[str] = set()
        self._made: dict[str, dict[tuple[str, str], int]] = {}  # parent → (task, digest) → how many
        self._lock = Lock()
        self.named: set[str] = set()

    def name_call(self, parent: str, task: str, arguments: Mapping[str, Any]) -> str:
        """Name the call that is being made now, and count it."""
        digest = digest_arguments(arguments)
        with self._lock:
            made = self._made.setdefault(parent, {})
            ordinal = made.get((task, digest), 0)
            made[task, digest] = ordinal + 1
        key = call_key(parent, task, digest, ordinal)
        if self.past.calls:
            self.named.add(key)
        return key

    def recorded(self, key: str) -> bytes | None:
        """The JSON result of a call that has been recorded, or None."""
        found = self._recorded.get(key)
        return self._fresh.get(key) if found is None else found

    def record(self, call: TaskCall) -> Future[None]:
        """Hand a finished call over; the code behind it must wait for the future."""
        if call.state is State.COMPLETED and call.parent in self._tried_again:
            self._fresh[call.key] = call.result
        return self._record(call)

    def begin_try(self, key: str, outer: str | None, may_be_tried_again: bool) -> None:
        """The body of call `key` begins: what it calls is counted from the first again.

        outer: key of the call that made it; None: none did.  may_be_tried_again: calls that finish in it are to be
        replayed by its next try; it is so, too, where that holds for the outer call.
        """
        with self._lock:
            self._made.pop(key, None)
        if may_be_tried_again or outer in self._tried_again:
            self._tried_again.add(key)

    def end_call(self, key: str) -> None:
        """The call `key` has ended; nothing more is called in it."""
        with self._lock:
            self._made.pop(key, None)
        self._tried_again.discard(key)

    def restart(self) -> None:
        """Forget what earlier tries recorded: the run begins anew."""
        self._recorded, self.past = {}, Past()


class Memory(Journal):
    """A journal for flows that are retried in plain Python: it keeps the results themselves, for this process only."""

    def __init__(self) -> None:
        super().__init__({}, self._kept)
        self.objects: list[Any] = []

    def keep(self, value: Any) -> bytes:
        """What stands for the value in a record."""
        self.objects.append(value)
        return str(len(self.objects) - 1).encode()

    def find(self, record: bytes) -> Any:
        """The value that a record stands for."""
        return self.objects[int(record)]

    def _kept(self, call: TaskCall) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(None)
        return future
