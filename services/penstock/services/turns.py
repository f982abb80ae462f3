"""Whose turn it is among the runs that wait: priority, ageing, and turns between keys, as one number.

Each run that is made gets a rank, in microseconds; the lowest is claimed first. It is the time at which the run became
due, a minute earlier for each point of priority; but no earlier than a minute after the last run of the same flow, key
and priority that waits already. From this follows:

- Ageing: what waits for a minute outranks what comes now with one point more. Nothing starves: a run is overtaken only
  by runs that became due before its rank plus a minute for each point of theirs.
- Turns: of a key with ten thousand runs, those after the first few stand behind whatever comes for other keys. Two
  such keys alternate.

Ranks never change, so that one index holds the runs in order, however many wait. The database calculates them as rows
come in (a trigger, migration 0009): `rank` says the same for people and tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from penstock.events.instants import Instant

POINT = 60_000_000  # microseconds of waiting that one point of priority is worth
TURN = 60_000_000  # microseconds that a run stands behind the one before it of the same flow, key and priority
_LONGEST = 64  # characters of a key that are kept as they are; indexes take no long ones


def rank(due_at: Instant, priority: int, same: Iterable[int] = ()) -> int:
    """The rank of a new run.  same: ranks of the runs of its flow, key and priority that wait for a worker."""
    return max([due_at - POINT * priority, *(each + TURN for each in same)])


def fairness_key(text: str) -> str:
    """As runs keep it: long texts as their digest."""
    return text if len(text) <= _LONGEST else blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
