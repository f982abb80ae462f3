"""Stage two's reading: what has been applied before is dropped, and a batch ends where the revision changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.automations import load_texts
from penstock.events.bus import MATCHES, Record
from penstock.services.engine.batches import read_batches
from penstock.services.engine.correlation import AnyState, AutomationOf, Fold, Folded, Match, Place, places
from penstock.services.engine.match_records import Matched, MatchRecord, Progress, outgoing, progress_to_all
from penstock.services.engine.stage_two import Memory

RULES = """
automations:
  - name: a
    when: {event: t, count: 2, within: 1h, lateness: 1h}
    then: [{emit: {type: twice}}]
"""
TWICE = load_texts({"rules.yaml": RULES}).rules[0]


def record(offset: int, origin: int, *, revision: int = 1, id_: str | None = None, key: str = "null") -> Record:
    event = {"id": id_ or f"e{origin}", "source": "s", "type": "t"}
    found = MatchRecord(
        revision=revision,
        topic="penstock.events",
        partition=0,
        offset=origin,
        arrival=offset,
        event=msgspec.Raw(msgspec.json.encode(event)),
        matched=(Matched("a", "d", key),),
    )
    return Record(MATCHES, 0, offset, 0, outgoing(found, 0).value)


def fold(matches: Sequence[Match], states: Mapping[Place, AnyState], automation_of: AutomationOf) -> Folded:
    made = Fold(states, automation_of)
    made.feed(matches, 0)
    return made.folded


def origins(batches: list[object]) -> list[str]:
    return [match.envelope.id for batch in batches for match in batch.matches]  # type: ignore[attr-defined]


def test_a_record_at_or_below_the_origin_applied_is_dropped() -> None:
    batches = read_batches({("penstock.events", 0): 5}, [record(0, 4), record(1, 5), record(2, 6)])
    assert origins(list(batches)) == ["e6"]
    assert batches[0].origins == {("penstock.events", 0): 6}
    assert batches[0].end == 3


def test_a_batch_ends_where_the_revision_changes() -> None:
    batches = read_batches({}, [record(0, 1), record(1, 2), record(2, 3, revision=2)])
    assert [(batch.revision, len(batch.matches), batch.end) for batch in batches] == [(1, 2, 2), (2, 1, 3)]


def test_progress_moves_the_clock_and_nothing_else() -> None:
    value = progress_to_all([Progress("penstock.events", 3, 77)], 1)[0].value
    [batch] = read_batches({}, [Record(MATCHES, 0, 9, 0, value)])
    assert (batch.clocks, batch.matches, batch.revision, batch.end) == ({("penstock.events", 3): 77}, [], 0, 10)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_whatever_two_owners_wrote_in_order_is_applied_once_and_completely(cuts: list[int]) -> None:
    """Each owner writes a complete sequence from some stored position on; they may lie within each other."""
    written, reached = [], 0
    for cut in cuts:  # each taking begins at most where the one before had come to, and goes on from there
        start = max(0, reached - cut % 7)
        written += list(range(start, start + cut))
        reached = max(reached, start + cut)
    batches = read_batches({}, [record(offset, origin) for offset, origin in enumerate(written)])
    assert origins(list(batches)) == [f"e{number}" for number in range(reached)]


def test_a_window_of_a_rule_that_is_gone_takes_nothing_in() -> None:
    [batch] = read_batches({}, [record(0, 1), record(1, 2)])
    assert fold(batch.matches, {}, lambda place: None).kept == {}
    folded = fold(batch.matches, {}, lambda place: TWICE)
    assert [(each.automation, each.key) for each in folded.decided] == [("a", "null")]
    assert places(batch.matches, lambda place: TWICE) == {Place("a", "d", "null")}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.integers(1, 40))
def test_folding_in_two_batches_is_folding_in_one(events: list[tuple[int, bool]], cut: int) -> None:
    records = [record(n, n + 1, key=str(key)) for n, (key, _) in enumerate(events)]
    matches = [match for batch in read_batches({}, records) for match in batch.matches] if records else []
    whole = fold(matches, {}, lambda place: TWICE)
    first = fold(matches[:cut], {}, lambda place: TWICE)
    second = fold(matches[cut:], {place: each.state for place, each in first.kept.items()}, lambda place: TWICE)
    assert first.decided + second.decided == whole.decided
    assert {**first.kept, **second.kept} == whole.kept


def test_the_clock_counts_only_once_every_source_partition_has_told_its_progress() -> None:
    """One that has not may have a backlog, whose windows are still open."""
    from types import SimpleNamespace
    from typing import Any, cast

    from penstock.services.engine.stage_two import StageTwo

    stage = cast(Any, StageTwo.__new__(StageTwo))
    stage._ownership = SimpleNamespace(partitions=lambda topic: 2)
    told: dict[tuple[str, int], int] = {("penstock.events", 0): 1, ("penstock.events", 1): 1, ("penstock.system", 0): 1}
    assert stage._clock(Memory(clocks=told)) == 0
    assert stage._clock(Memory(clocks={**told, ("penstock.system", 1): 9})) == 0  # before the instant 1
    assert stage._clock(Memory(clocks={**dict.fromkeys(told, 7), ("penstock.system", 1): 9})) == 6
