"""The identity of a decision: derived from its cause, so that a crash, a replay or a move cannot double it."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.events.ids import derived_id
from penstock.events.instants import Instant
from penstock.triggers.keys import canonical


def decision_id(
    namespace: str,
    automation: str,
    when_digest: str,
    kind: str,
    key: str,
    due: Instant | None,
    events: Iterable[tuple[str, str]],
) -> str:
    """32 hexadecimal digits, the same for the same cause.

    key: as `penstock.triggers.keys.key_of` gives it (canonical JSON).
    due: the deadline or due time, where a timer decided.
    events: (source, id) of each event that took part; their order says nothing.
    """
    cause = sorted([source, id_] for source, id_ in events)
    return derived_id(
        "decision", namespace, automation, when_digest, kind, key, "" if due is None else str(due), canonical(cause)
    )
