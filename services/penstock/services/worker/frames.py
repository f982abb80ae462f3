"""What a worker and its children say to each other: length-prefixed MessagePack over the child's stdin and stdout.

A frame is four bytes of length (big-endian) and one tagged object. Each carries its format version `v`; a reader takes
its own version and the one before, so that a worker survives an upgrade beneath it. Results, parameters and journals
are JSON inside, as the database has them; instants are microseconds.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar

import msgspec

from penstock.events.errors import PenstockError
from penstock.events.instants import Instant

VERSION = 1
MAX_FRAME = 256 << 20  # bytes; a longer one is noise on the channel, not a frame
_HEADER = 4


class FrameError(PenstockError):
    """What came over the channel is no frame of a version that is understood; the child has to be replaced."""


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """One message; `kind` is its class name in lower case."""

    v: int = VERSION


class Load(Frame, frozen=True, kw_only=True):
    """To the child, once: import these modules (paths or dotted names)."""

    modules: list[str]
    heartbeat: float = 1.0  # seconds between signs of life


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A recorded call besides its result, as in TaskFinished.  parent: None where unknown."""

    name: str
    source: str = ""
    parent: str | None = None


class Execute(Frame, frozen=True, kw_only=True):
    """To the child: carry out a run.

    parameters: a JSON object.  journal: call key → JSON result of what earlier tries completed.
    attempt: 1 for the first try.  until: as in Hold.  retries_left: further tries that the flow's policy allows.
    source: digest of the flow's code when the run began, "" where unknown.  calls: what is known of recorded calls.
    may_suspend: the worker takes `Asked`, and ends of a try in state paused and waiting.
    ended: the run has ended in this state, without its process; only the hooks of it are to be called.  reason: why.
    """

    run_id: str
    epoch: int
    flow: str
    parameters: bytes = b"{}"
    journal: dict[str, bytes] = {}
    attempt: int = 1
    namespace: str = "default"
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    hops: int = 0
    until: float = math.inf
    retries_left: int = 0
    source: str = ""
    calls: dict[str, Known] = {}
    may_suspend: bool = False
    ended: str = ""
    reason: str = ""


class Recorded(Frame, frozen=True, kw_only=True):
    """To the child: the call is in the journal, its code may go on.

    refused: why what was `Asked` under this name cannot be.
    """

    run_id: str
    call: str
    refused: str = ""


class Hold(Frame, frozen=True, kw_only=True):
    """To the child: the run is ours until then; the child ends itself when it has not heard of a later time.

    until: seconds on the child's monotonic clock, which goes on while the worker or the child is stopped.
    """

    run_id: str
    epoch: int
    until: float


class Cancel(Frame, frozen=True, kw_only=True):
    """To the child: end this try of the run. reason: `cancelled` or `timed_out`."""

    run_id: str
    epoch: int
    reason: str = "cancelled"


class Stop(Frame, frozen=True, kw_only=True):
    """To the child: leave when the present run, if any, has ended."""


class FlowInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as its worker registers it.

    module, name: what `module:flow` refers to.  qualname, place: where the function stands.  parameters: JSON Schema.
    retry_delays: seconds before each retry of the run, as many as `retries`.  retry_jitter: share that chance may add.
    timeout: seconds for one try of a run.  source: digest of its code.
    """

    name: str
    module: str
    qualname: str
    place: str
    parameters: dict[str, Any]
    limits: list[str] = []
    tags: list[str] = []
    retries: int = 0
    retry_delays: list[float] = []
    retry_jitter: float = 0.0
    timeout: float | None = None
    doc: str = ""
    source: str = ""


class Problem(msgspec.Struct, frozen=True):
    """Why a module, or a flow of it, cannot be used."""

    module: str
    reason: str


class Loaded(Frame, frozen=True, kw_only=True):
    """From the child: what the modules hold. clock: as in Heartbeat."""

    flows: dict[str, FlowInfo]
    problems: list[Problem] = []
    clock: float | None = None


class Started(Frame, frozen=True, kw_only=True):
    """From the child: the parameters fit, the run's code begins now.

    name: as the flow's `run_name` makes it.  source: digest of the flow's code.
    """

    run_id: str
    epoch: int
    at: Instant
    name: str = ""
    source: str = ""


class Log(Frame, frozen=True, kw_only=True):
    """From the child: one line that the run logged or printed. run_id: "" between runs. level: as in `logging`."""

    run_id: str
    at: Instant
    level: str
    line: str


class TaskFinished(Frame, frozen=True, kw_only=True):
    """From the child: a call has finished; the child waits for `Recorded`.

    call, parent: keys within the run.  state: completed, failed or timed_out.  result: JSON ("null" unless completed).
    label: what the call is shown as.  takes: keys of the calls whose results it took.  source: digest of its code.
    """

    run_id: str
    epoch: int
    call: str
    parent: str
    name: str
    state: str
    result: bytes
    started: Instant
    ended: Instant
    error: str | None = None
    label: str = ""
    takes: tuple[str, ...] = ()
    source: str = ""


class Asked(Frame, frozen=True, kw_only=True):
    """From the child: something is to be kept with the run; the child waits for `Recorded`.

    what: approval, event, continue or restart (penstock.flows.host).  call: what the answer is to be recorded under.
    body: JSON of what is asked.
    """

    run_id: str
    epoch: int
    what: str
    call: str
    body: bytes = b"{}"


class Finished(Frame, frozen=True, kw_only=True):
    """The end of a try, from the child; in state `crashed` from the parent, when the child died.

    state: completed, failed, timed_out, cancelled or crashed; paused or waiting: for what `error` says, at most until
    `until`.  result: JSON.  error: one line.  traceback: of the user's code.
    spent: the child carries a rest of the run (a thread that cannot be stopped) and should be replaced.
    retry: false where the flow's own condition says that this error is no reason to try again.
    waits_for: of a paused or waiting run: "answer" (a time, too), or "code": that somebody chooses what becomes of it.
    told: false where the child did not live to call the hooks of this state.
    """

    run_id: str
    epoch: int
    state: str
    at: Instant
    result: bytes = b"null"
    error: str | None = None
    traceback: str | None = None
    spent: bool = False
    retry: bool = True
    until: Instant | None = None
    waits_for: str = ""
    told: bool = True


class Heartbeat(Frame, frozen=True, kw_only=True):
    """From the child: its interpreter runs.

    clock: its monotonic clock when this was sent; the parent tells by it when a lease ends, see `Child.hold`.
    """

    at: Instant
    clock: float | None = None


ToChild: TypeAlias = Load | Execute | Recorded | Hold | Cancel | Stop
FromChild: TypeAlias = Loaded | Started | Log | TaskFinished | Asked | Finished | Heartbeat

T = TypeVar("T", bound=Frame)
_encoder = msgspec.msgpack.Encoder()
TO_CHILD: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
FROM_CHILD: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)


def encode(frame: Frame) -> bytes:
    """The frame as it goes over the channel."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_HEADER, "big") + body


class FrameBuffer:
    """Puts frames together from the pieces that a pipe delivers, of whatever sizes.

    decoder: TO_CHILD or FROM_CHILD.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[Any]:
        """The frames that are complete now, in order.  Raises FrameError; the channel cannot be used after it."""
        self._rest += piece
        found, at = [], 0
        while (end := self._end(at)) is not None:
            found.append(self._decode(memoryview(self._rest)[at + _HEADER : end]))
            at = end
        del self._rest[:at]
        return found

    def _end(self, at: int) -> int | None:
        """Where the frame at this place ends, or None while it is not whole."""
        if len(self._rest) < at + _HEADER:
            return None
        length = int.from_bytes(self._rest[at : at + _HEADER], "big")
        if length > MAX_FRAME:
            raise FrameError(
                f"a frame of {length} bytes was announced, at most {MAX_FRAME} are taken: this is no frame"
            )
        end = at + _HEADER + length
        return end if len(self._rest) >= end else None

    def _decode(self, body: memoryview) -> Frame:
        try:
            frame: Frame = self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise FrameError(
                f"a frame that is not understood: {error}; were worker and child upgraded together?"
            ) from None
        finally:
            body.release()
        if frame.v not in (VERSION, VERSION - 1):
            raise FrameError(f"a frame of version {frame.v}, this side speaks {VERSION}; restart the worker")
        return frame
