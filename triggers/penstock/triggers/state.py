"""All that is kept for one automation and key, and its stored form."""

from __future__ import annotations

import msgspec

from penstock.events.errors import PenstockError
from penstock.events.instants import Instant
from penstock.triggers.evidence import Evidence
from penstock.triggers.firings import Hit
from penstock.triggers.node_states import NodeState

FORMAT = 1


class StateFormatError(PenstockError):
    """Stored bytes are no state that this version can read."""


class Passed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`count` firings were let through no later than `at`."""

    at: Instant
    count: int = 1


class Settling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Firings that debounce holds: when the first and the last came, and the events of all.

    value, from_: JSON of the firing that counts.
    """

    first: Instant
    last: Instant
    events: tuple[Evidence, ...]
    value: bytes = b"null"
    from_: bytes = b"null"


class KeyState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of one (automation, when digest, key); EMPTY where nothing of it matters.

    clock: the last instant taken in; it never runs back.  number: how many events and timers were.
    held: events that must wait, for a deadline before them or for their turn.
    settling: debounce's.  log: throttle's, in order of time.  passed: whether the last firing was let through, so that
    a resolve of it exists.
    """

    v: int = FORMAT
    clock: Instant = 0
    number: int = 0
    tree: NodeState | None = None
    held: tuple[Hit, ...] = ()
    settling: Settling | None = None
    log: tuple[Passed, ...] = ()
    passed: bool = False


EMPTY = KeyState()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeyState)


def encode(state: KeyState) -> bytes:
    """The stored form."""
    return _encoder.encode(state)


def decode(body: bytes) -> KeyState:
    """From the stored form, of this format version or the one before.  Raises StateFormatError for any other."""
    try:
        state = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise StateFormatError(f"{len(body)} bytes are no state of a rule: {error}") from None
    if state.v != FORMAT:
        raise StateFormatError(f"a state of format {state.v} was written by another version; this one knows {FORMAT}")
    return state
