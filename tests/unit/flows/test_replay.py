"""Whatever part of a run was recorded: the replay gives the same result, and runs no finished task a second time."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.journals import Bodies, Kept

from penstock.flows import ThreadRunner, flow, now, random, task, uuid4

bodies = Bodies()
order = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One statement of a made-up flow.  how: call, submit, gather, map or draw.  values: the arguments."""

    how: str
    values: tuple[int, ...]


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["call", "acall", "submit", "asubmit", "gather", "map", "nested", "flow", "draw", "chain"]),
        st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple),
    ),
    max_size=5,
)


@task
def work(value: Any) -> str:
    with order:
        bodies.ran.append("work")
    return f"{value}-{uuid4()}"  # what a body draws is its own: equal calls have different results


@task
async def awork(value: Any) -> str:
    bodies.ran.append("awork")
    for _ in range(hash(str(value)) % 3):  # they end in an order of their own
        await asyncio.sleep(0)
    return f"{value}-{uuid4()}"


@task
def nests(value: int) -> list[str]:
    with order:
        bodies.ran.append("nests")
    return [work(value), work(value)]


@flow
def below(value: int) -> list[str]:
    return [work(value), *work.map([value, value]).result()]


async def do(step: Step) -> Any:
    first, values = step.values[0], step.values
    if step.how == "call":
        return [work(value) for value in values]
    if step.how == "acall":
        return [await awork(value) for value in values]
    if step.how == "submit":
        return await asyncio.gather(*[work.submit(value) for value in values])
    if step.how == "asubmit":
        return [await future for future in [awork.submit(value) for value in values]]
    if step.how == "gather":
        return await asyncio.gather(*[awork(value) for value in values])
    if step.how == "map":
        return await work.map(values)
    if step.how == "nested":
        return [nests(first), await nests.submit(first)]
    if step.how == "flow":
        return below(first)
    if step.how == "chain":
        return await awork.submit(work.submit(first))
    return [str(now()), random(), str(uuid4())]


@flow(runner=ThreadRunner(max_workers=3))
async def made_up(what: list[Step]) -> list[Any]:
    return [await do(step) for step in what]


@settings(deadline=None, max_examples=60)
@given(steps, st.data())
def test_any_prefix_of_the_journal_replays(what: list[Step], data: st.DataObject) -> None:
    first = Kept()
    bodies.ran.clear()
    found = first.run(made_up, what=what)
    whole = first.again()
    bodies.ran.clear()
    assert (whole.run(made_up, what=what), bodies.ran, whole.calls) == (found, [], [])
    cut = data.draw(st.integers(0, len(first.calls)))
    prefix = {call.key: call.result for call in first.calls[:cut]}
    second = Kept(prefix)
    bodies.ran.clear()
    resumed = second.run(made_up, what=what)
    assert_replayed(first, second, cut)
    third = second.again()
    bodies.ran.clear()
    assert (third.run(made_up, what=what), bodies.ran) == (resumed, [])


@settings(deadline=None, max_examples=40)
@given(steps, st.data())
def test_any_set_of_records_replays_to_a_run_that_then_stays_so(what: list[Step], data: st.DataObject) -> None:
    """Calls beside each other are recorded in any order, so that any set of them may have survived."""
    first = Kept()
    first.run(made_up, what=what)
    kept = data.draw(st.sets(st.sampled_from(first.calls))) if first.calls else set()
    second = Kept({call.key: call.result for call in kept})
    resumed = second.run(made_up, what=what)
    assert not {call.key for call in kept} & {call.key for call in second.calls}
    bodies.ran.clear()
    assert (second.again().run(made_up, what=what), bodies.ran) == (resumed, [])


def assert_replayed(first: Kept, second: Kept, cut: int) -> None:
    """Nothing that was recorded was recorded again, and what was not, was: each body once, if it was not in flight."""
    before = {call.key for call in first.calls[:cut]}
    again = {call.key for call in second.calls}
    assert not before & again
    own = {"work", "awork", "nests"}
    assert Counter(bodies.ran) == Counter(call.task for call in second.calls if call.task in own)
    assert {call.key for call in first.calls[cut:]} - again <= inside_recorded(first, before)


def inside_recorded(first: Kept, before: set[str]) -> set[str]:
    """Calls within recorded ones: they are not made again."""
    return {call.key for call in first.calls if call.parent in before}
