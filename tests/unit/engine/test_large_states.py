"""A state that grows beyond 64 KiB is told of, and kept whole."""

from __future__ import annotations

from structlog.testing import capture_logs

from penstock.services.database.late import Writes
from penstock.services.engine.correlation import Kept, Place
from penstock.services.engine.states import LARGE, States
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import Hit
from penstock.triggers.state import KeyState


def test_a_state_of_more_than_64_kib_is_written_whole_and_told_of_once_a_minute() -> None:
    waiting = tuple(Hit(at, Evidence(at, "/s", f"e{at}", b"x" * 200), (0,)) for at in range(400))
    kept = {
        Place("held", "d", '"k"'): Kept(KeyState(held=waiting), 7),
        Place("small", "d", '"k"'): Kept(KeyState(clock=1), 7),
    }
    states, writes = States("default"), Writes()
    with capture_logs() as said:
        states.save(writes, 3, kept, frozenset())
        states.save(Writes(), 3, kept, frozenset())
    [rows] = [rows for rows in writes.rows.values() if rows]
    assert max(len(row["body"]) for row in rows) > LARGE
    [told] = [line for line in said if line["event"] == "engine.state_large"]
    assert told["automation"] == "held"
    assert "lateness" in told["remedy"]
