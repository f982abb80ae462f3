"""A warm child process: it has the user's modules imported and carries out one run after another for a worker.

Started as `python -m penstock.services.worker.child`; it speaks frames (frames.py) on its stdin and stdout and imports
nothing of the server. The main thread runs the user's code, so that blocking, signals and `asyncio.run` behave as in a
program of its own; a second thread reads frames, a third gives signs of life. When the parent goes, the child goes;
and when the parent is stopped past the run's lease, too.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from penstock.flows.context import leave_run
from penstock.flows.errors import RunCancelled, RunTimedOut
from penstock.flows.load import Library, LoadedFlow, load_flows
from penstock.flows.tries import describe, now
from penstock.services.worker.channel import Channel, Interruption, Output
from penstock.services.worker.frames import (
    TO_CHILD,
    Cancel,
    Execute,
    Finished,
    FlowInfo,
    FrameBuffer,
    FrameError,
    Heartbeat,
    Hold,
    Load,
    Loaded,
    Problem,
    Recorded,
    Stop,
    ToChild,
)
from penstock.services.worker.run import Run


class Child:
    """The process: its channel, its flows, its present run."""

    def __init__(self, library: Library | None = None, modules: Sequence[str] = ()) -> None:
        """library: what `modules` hold, where they have been imported already (template.py)."""
        self._interruption = Interruption()
        self._channel = Channel(self._interruption)
        self._output = Output(self._channel, self._interruption)
        self._preloaded = list(modules) if library is not None else None
        self._library = library or Library()
        self._orders: SimpleQueue[Load | Execute | Stop] = SimpleQueue()
        self._run: Run | None = None
        self._until = math.inf  # of the present run's lease, on the monotonic clock
        os.register_at_fork(after_in_child=leave_run)
        self._early: set[tuple[str, int]] = set()  # runs cancelled before the main thread took them up

    def serve(self) -> None:
        """Follow orders until `Stop`."""
        threading.Thread(target=self._read, name="penstock-frames", daemon=True).start()
        while not isinstance(order := self._orders.get(), Stop):
            if isinstance(order, Load):
                self._load(order)
            else:
                self._execute(order)

    def _load(self, order: Load) -> None:
        threading.Thread(target=self._beat, args=(order.heartbeat,), name="penstock-heartbeat", daemon=True).start()
        if order.modules != self._preloaded:
            self._library = load_flows(order.modules)
        problems = [Problem(problem.module, problem.reason) for problem in self._library.problems]
        flows = {name: flow_info(flow) for name, flow in self._library.flows.items()}
        self._output.end()
        self._channel.send(Loaded(flows=flows, problems=problems, clock=time.monotonic()))

    def _execute(self, order: Execute) -> None:
        if time.monotonic() >= order.until:
            _leave()  # the worker was stopped between its claim and this order: somebody else may have the run by now
        self._output.begin(order.run_id)
        found = self._find(order.flow)
        if isinstance(found, str):
            end = Finished(run_id=order.run_id, epoch=order.epoch, state="failed", at=now(), error=found)
        else:
            end = self._carry_out(Run(order, found.flow, self._channel, self._interruption))
        self._output.end()
        self._channel.send(end)

    def _carry_out(self, run: Run) -> Finished:
        self._run, self._until = run, run.order.until
        if (run.order.run_id, run.order.epoch) in self._early:
            run.interrupt(RunCancelled)
        try:
            return run.carry_out()
        finally:
            self._run, self._until = None, math.inf
            self._early.clear()

    def _find(self, name: str) -> LoadedFlow | str:
        """The flow of that name, or of that `module:name`; else why there is none."""
        flows = self._library.flows
        if name in flows:
            return flows[name]
        module, _, flow = name.partition(":")
        found = [
            each for each in flows.values() if each.module == module and flow in (each.flow.name, each.flow.qualname)
        ]
        if found:
            return found[0]
        problems = "".join(f"; {problem}" for problem in self._library.problems)
        return f"this worker has no flow {name!r} (it has: {', '.join(flows) or 'none'}){problems}"

    def _read(self) -> None:
        """The thread that reads: it answers by itself what must not wait for the user's code."""
        frames = FrameBuffer(TO_CHILD)
        while piece := self._channel.read():
            try:
                for frame in frames.feed(piece):
                    self._take(frame)
            except FrameError as error:
                self._channel.log("ERROR", describe(error))
                break
        _leave()

    def _take(self, frame: ToChild) -> None:
        run = self._run
        if isinstance(frame, Load | Execute | Stop):
            self._orders.put(frame)
        elif isinstance(frame, Recorded):
            if run is not None and run.order.run_id == frame.run_id:
                run.confirm(frame.call, frame.refused)
        elif isinstance(frame, Hold):
            if run is not None and (frame.run_id, frame.epoch) == (run.order.run_id, run.order.epoch):
                self._until = frame.until
        else:
            self._cancel(frame, run)

    def _cancel(self, frame: Cancel, run: Run | None) -> None:
        tried = frame.run_id, frame.epoch
        self._early.add(tried)
        if run is not None and tried == (run.order.run_id, run.order.epoch):
            run.interrupt(RunTimedOut if frame.reason == "timed_out" else RunCancelled)

    def _beat(self, interval: float) -> None:
        pause, sent = threading.Event(), time.monotonic()
        while True:
            pause.wait(max(0.0, min(sent + interval, self._until) - time.monotonic()))
            if time.monotonic() >= self._until:
                _leave()  # the worker has been stopped, and somebody else may claim the run any moment
            if time.monotonic() >= sent + interval:
                self._channel.send(Heartbeat(at=now(), clock=time.monotonic()))
                sent = time.monotonic()


def flow_info(loaded: LoadedFlow) -> FlowInfo:
    """What the worker registers of a flow."""
    flow: Any = loaded.flow
    return FlowInfo(
        name=flow.name,
        module=loaded.module,
        qualname=flow.qualname,
        place=flow.place,
        parameters=loaded.schema,
        limits=list(flow.limits),
        tags=list(flow.tags),
        retries=flow.policy.retries,
        retry_delays=flow.policy.waits(),
        retry_jitter=flow.policy.jitter,
        timeout=flow.policy.timeout,
        doc=flow.description,
        source=flow.source,
    )


def _leave() -> None:
    """The parent is gone or not understood: what runs here is nobody's any more. Its subprocesses go too."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(70)


if __name__ == "__main__":
    Child().serve()
