"""The protocol between a worker and its children."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.services.worker.frames import (
    FROM_CHILD,
    MAX_FRAME,
    TO_CHILD,
    VERSION,
    Cancel,
    Execute,
    Finished,
    FlowInfo,
    Frame,
    FrameBuffer,
    FrameError,
    Heartbeat,
    Load,
    Loaded,
    Log,
    Problem,
    Recorded,
    Started,
    Stop,
    TaskFinished,
    encode,
)

texts = st.text(max_size=20)
bodies = st.binary(max_size=50)
instants = st.integers(0, 2**60)
epochs = st.integers(0, 2**40)
flow_infos = st.builds(
    FlowInfo,
    name=texts,
    module=texts,
    qualname=texts,
    place=texts,
    parameters=st.dictionaries(texts, st.none() | st.integers(0, 9) | texts, max_size=3),
    limits=st.lists(texts, max_size=2),
    retry_delays=st.lists(st.floats(0, 1e6), max_size=3),
    timeout=st.none() | st.floats(0.1, 1e6),
)
to_child = st.one_of(
    st.builds(Load, modules=st.lists(texts, max_size=3)),
    st.builds(
        Execute,
        run_id=texts,
        epoch=epochs,
        flow=texts,
        parameters=bodies,
        journal=st.dictionaries(texts, bodies),
        hops=epochs,
    ),
    st.builds(Recorded, run_id=texts, call=texts),
    st.builds(Cancel, run_id=texts, epoch=epochs, reason=texts),
    st.builds(Stop),
)
from_child = st.one_of(
    st.builds(
        Loaded,
        flows=st.dictionaries(texts, flow_infos, max_size=2),
        problems=st.lists(st.builds(Problem, texts, texts), max_size=2),
    ),
    st.builds(Started, run_id=texts, epoch=epochs, at=instants),
    st.builds(Log, run_id=texts, at=instants, level=texts, line=texts),
    st.builds(
        TaskFinished,
        run_id=texts,
        epoch=epochs,
        call=texts,
        parent=texts,
        name=texts,
        state=texts,
        result=bodies,
        started=instants,
        ended=instants,
        error=st.none() | texts,
    ),
    st.builds(Finished, run_id=texts, epoch=epochs, state=texts, at=instants, result=bodies, error=st.none() | texts),
    st.builds(Heartbeat, at=instants),
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(st.lists(to_child, max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_orders_arrive_whole_and_in_order_however_the_pipe_cuts_them(frames: list[Frame], places: list[int]) -> None:
    assert_arrives(frames, FrameBuffer(TO_CHILD), places)


@given(st.lists(from_child, max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_answers_arrive_whole_and_in_order_however_the_pipe_cuts_them(frames: list[Frame], places: list[int]) -> None:
    assert_arrives(frames, FrameBuffer(FROM_CHILD), places)


def assert_arrives(frames: list[Frame], buffer: FrameBuffer, places: list[int]) -> None:
    pieces = cut(b"".join(map(encode, frames)), places)
    assert [frame for piece in pieces for frame in buffer.feed(piece)] == frames


def test_one_byte_at_a_time_is_enough() -> None:
    buffer, order = FrameBuffer(TO_CHILD), Recorded(run_id="r", call="c")
    assert [frame for byte in encode(order) for frame in buffer.feed(bytes([byte]))] == [order]


def test_a_frame_of_the_version_before_is_understood() -> None:
    assert FrameBuffer(TO_CHILD).feed(encode(Stop(v=VERSION - 1))) == [Stop(v=VERSION - 1)]


def test_a_frame_of_a_later_version_is_refused() -> None:
    with pytest.raises(FrameError, match=f"version {VERSION + 1}"):
        FrameBuffer(TO_CHILD).feed(encode(Stop(v=VERSION + 1)))


def test_fields_that_a_later_release_adds_are_passed_over() -> None:
    assert FrameBuffer(TO_CHILD).feed(framed({"kind": "stop", "v": VERSION, "new": 1})) == [Stop()]


@pytest.mark.parametrize("body", [{"kind": "dance", "v": 1}, {"kind": "recorded", "v": 1}, [1, 2], None])
def test_what_is_no_frame_is_refused(body: Any) -> None:
    with pytest.raises(FrameError, match="not understood"):
        FrameBuffer(TO_CHILD).feed(framed(body))


def test_text_on_the_channel_is_noticed_before_it_is_waited_for() -> None:
    with pytest.raises(FrameError, match=f"at most {MAX_FRAME}"):
        FrameBuffer(FROM_CHILD).feed(b"Hello, world\n")


def framed(body: Any) -> bytes:
    packed = msgspec.msgpack.encode(body)
    return len(packed).to_bytes(4, "big") + packed
