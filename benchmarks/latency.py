"""emit → the first line of the run, and emit → the call to Slack, through separate processes on real services."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.rig import until

from penstock.events import AsyncEmitter, Event
from penstock.services.standins import StandIn

FLOWS = """
import os
import time

from penstock.flows import flow


@flow
def mark(path: str, n: int) -> None:
    now = time.time_ns()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{n} {now}\\n".encode())
    os.close(descriptor)
"""
RULES = """
channels: [{{name: ops, slack: {{channel: "#bench", token: "x"}}, base_url: "{url}", rate: unlimited}}]
automations:
  - name: launch
    when: {{event: bench.run}}
    then: [{{run: mark, with: {{path: "{path}", n: "{{{{ event.data.n }}}}"}}}}]
  - name: tell
    when: {{event: bench.slack}}
    then: [{{notify: ops, text: "{{{{ event.data.n }}}}"}}]
"""


class Bench:
    """A fleet with rules in force, a stand-in Slack, and a flow that marks its first line in a file."""

    def __init__(self, fleet: Fleet, standin: StandIn) -> None:
        self.fleet, self.standin = fleet, standin
        self.marks = fleet.folder / "marks"

    async def start(self) -> None:
        """Every process that takes part, and the rules."""
        flows = self.fleet.folder / "bench_flows.py"
        flows.write_text(FLOWS)
        self.marks.touch()
        await self.fleet.start("worker", PENSTOCK_FLOWS=str(flows), PENSTOCK_CONCURRENCY="4")
        await self.fleet.rig.apply(RULES.format(url=self.standin.url, path=self.marks))
        await self.fleet.start_all("engine", "notifier")

    async def run_latencies(self, rate: float, count: int) -> list[float]:
        """Milliseconds from before the emit to the flow's first line."""
        self.marks.write_text("")
        sent = await self._emit("bench.run", rate, count)
        return await self._gathered(sent, self._marked, count)

    async def slack_latencies(self, rate: float, count: int) -> list[float]:
        """Milliseconds from before the emit to the call as the stand-in saw it."""
        self.standin.calls.clear()
        sent = await self._emit("bench.slack", rate, count)
        return await self._gathered(sent, self._called, count)

    async def _emit(self, type_: str, rate: float, count: int) -> dict[int, int]:
        sent: dict[int, int] = {}
        async with AsyncEmitter(self.fleet.environment["PENSTOCK_BUS_URL"]) as emitter, asyncio.TaskGroup() as group:
            began = time.perf_counter()
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                sent[number] = time.time_ns()
                event = Event(type=type_, source="/bench", subject=f"s{number}", data={"n": number})
                group.create_task(emitter.emit(event))
        return sent

    async def _gathered(self, sent: dict[int, int], seen: Callable[[], dict[int, int]], count: int) -> list[float]:
        async def all_there() -> bool:
            return len(seen()) >= count

        await until(all_there, within=180, what=f"{count} results")
        return [(at - sent[number]) / 1e6 for number, at in seen().items()]

    def _marked(self) -> dict[int, int]:
        lines = [line.split() for line in Path(self.marks).read_text().splitlines()]
        return {int(number): int(at) for number, at in lines}

    def _called(self) -> dict[int, int]:
        return {int(call.text): int(call.at * 1e9) for call in self.standin.of("slack")}
