"""The records of `penstock.matches`: one event for the windows of one match partition, or the progress of a reader.

Format 1. A reader ignores fields that it does not know; a writer of format n writes what a reader of n-1 can read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.events.bus import MATCHES, Outgoing
from penstock.events.instants import Instant

FORMAT = 1


class Matched(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One state that an event belongs to.

    leaves: the places of the rule that it matches with this key (`forms.leaves`).  by: the value of `dedupe: {by}`,
    None for a rule without `dedupe`.  Keys and values are canonical JSON.
    """

    automation: str
    when_digest: str
    key: str
    leaves: tuple[int, ...] = (0,)
    by: str | None = None


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a source partition has been read and forwarded: everything that arrived before `at`."""

    topic: str
    partition: int
    at: Instant


class MatchRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Either `matched`, with the event and where it came from, or `progress`, or `gaps`.

    gaps: source partitions of which records that arrived before `at` were lost unread.
    """

    v: int = FORMAT
    namespace: str = "default"
    revision: int = 0
    topic: str = ""  # the origin of the event
    partition: int = -1
    offset: int = -1
    arrival: Instant = 0  # its append time there
    event: msgspec.Raw = msgspec.Raw(b"null")
    matched: tuple[Matched, ...] = ()
    progress: tuple[Progress, ...] = ()
    gaps: tuple[Progress, ...] = ()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(MatchRecord)


def outgoing(record: MatchRecord, partition: int) -> Outgoing:
    """The record for one match partition."""
    return Outgoing(topic=MATCHES, partition=partition, value=_encoder.encode(record))


def progress_to_all(progress: Sequence[Progress], partitions: int) -> list[Outgoing]:
    """The same progress for every match partition."""
    value = _encoder.encode(MatchRecord(progress=tuple(progress)))
    return [Outgoing(topic=MATCHES, partition=number, value=value) for number in range(partitions)]


def gap_to_all(gap: Progress, partitions: int) -> list[Outgoing]:
    """The same gap for every match partition."""
    value = _encoder.encode(MatchRecord(gaps=(gap,)))
    return [Outgoing(topic=MATCHES, partition=number, value=value) for number in range(partitions)]


def decode(value: bytes) -> MatchRecord:
    """Raises msgspec.MsgspecError for what is no match record."""
    return _decoder.decode(value)
