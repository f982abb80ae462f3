"""A Job for each run: what becomes of runs when pods do not start, end otherwise than they should, or lose us."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.kubernetes import FakeCluster, FakeJob, a_cluster

from penstock.automations.pools import Kind, Kubernetes, Pool
from penstock.services.worker import pod
from penstock.services.worker.children import Child, ChildStartError
from penstock.services.worker.cluster import ApiCluster, ClusterError
from penstock.services.worker.frames import Execute, Finished, Log, TaskFinished
from penstock.services.worker.places import Making
from penstock.services.worker.pods import Podded

FLOWS = """
import threading
from penstock.flows import flow

@flow
def one() -> int:
    return 1

@flow
def waits() -> None:
    print("waiting")
    threading.Event().wait()
"""
POOL = Pool(name="podded", kind=Kind.KUBERNETES, image="flows:1", memory=64 << 20)
T = TypeVar("T")


class Runs:
    """A place for runs in the stand-in for a cluster."""

    def __init__(self, cluster: FakeCluster, place: Podded, child: Child) -> None:
        self.cluster, self.place, self.child = cluster, place, child
        self.lines: list[str] = []
        self.said = asyncio.Event()

    async def run(self, flow: str, until: float | None = None) -> Finished:
        order = Execute(run_id="run-1", epoch=3, flow=flow)
        if until is not None:
            order = Execute(run_id="run-1", epoch=3, flow=flow, until=until)
        return await soon(self.child.execute(order, on_task=_journal, on_log=self._take))

    async def begun(self) -> tuple[asyncio.Task[Finished], FakeJob]:
        """A run whose code has begun, and its Job."""
        running = asyncio.create_task(self.run("waits"))
        await soon(self.said.wait())
        return running, self.cluster.made[-1]

    def _take(self, line: Log) -> None:
        self.lines.append(line.line)
        if line.line == "waiting":
            self.said.set()


async def soon(awaited: Awaitable[T]) -> T:
    async with asyncio.timeout(20):
        return await awaited


async def _journal(call: TaskFinished) -> None:
    pass


@asynccontextmanager
async def placed(cluster: FakeCluster, pool: Pool = POOL) -> AsyncIterator[Runs]:
    place = Podded(Making(["jobs.py"], grace=0.2), pool, ApiCluster("flows", cluster.configuration), look=0.02)
    child = await soon(place.start())
    try:
        yield Runs(cluster, place, child)
    finally:
        await child.kill()
        await place.stop()
        await soon(cluster.wait_for_none())


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    (tmp_path / "jobs.py").write_text(FLOWS)
    async with a_cluster(tmp_path) as found:
        yield found


@pytest.fixture
async def runs(cluster: FakeCluster) -> AsyncIterator[Runs]:
    async with placed(cluster) as found:
        yield found


async def test_there_is_a_job_for_each_run_while_it_runs_which_says_whose_it_is(runs: Runs) -> None:
    assert not runs.cluster.jobs  # one has shown what the image holds
    running, job = await runs.begun()
    assert {"run-1", "waits", "podded", "3"} <= set(job.labels.values())
    runs.child.cancel("run-1")
    assert (await running).state == "cancelled"
    await runs.child.stop()
    assert not runs.cluster.jobs


async def test_a_run_is_lost_with_its_job(runs: Runs) -> None:
    running, job = await runs.begun()
    await runs.cluster.remove(job.name)
    finished = await running
    assert (finished.state, finished.told) == ("crashed", False)
    assert finished.error == "its Job was deleted from the cluster by somebody else"


async def test_memory_beyond_what_the_pool_allows_ends_the_run_with_the_reason(runs: Runs) -> None:
    running, job = await runs.begun()
    job.state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    job.end()
    finished = await running
    assert finished.state == "failed"
    assert finished.error == "it used more memory than the 64 MiB that the pool allows (OOMKilled)"


async def test_a_job_that_lived_too_long_times_its_run_out(runs: Runs) -> None:
    running, job = await runs.begun()
    job.conditions = [{"type": "Failed", "reason": "DeadlineExceeded"}]
    job.end()
    assert (await running).state == "timed_out"


async def test_a_run_whose_connection_is_lost_says_so(runs: Runs) -> None:
    running, job = await runs.begun()
    await job.connections[0].close()
    finished = await running
    assert (finished.state, finished.error) == ("crashed", "the connection to its pod was lost")


async def test_a_run_ends_when_its_lease_does_though_nobody_ends_it(runs: Runs) -> None:
    finished = await runs.run("waits", until=time.monotonic() + 0.8)
    assert finished.state == "crashed"
    assert "SIGKILL" in (finished.error or "")


async def test_a_lease_that_is_renewed_while_the_pod_starts_is_told_to_it(runs: Runs) -> None:
    runs.cluster.trouble = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    running = asyncio.create_task(runs.run("one", until=time.monotonic()))
    job = await soon(runs.cluster.wait_for(2))
    runs.child.hold("run-1", time.monotonic() + 600)
    await runs.cluster.start(job)
    assert (await running).state == "completed"


async def test_a_run_is_cancelled_before_its_pod_is_there(runs: Runs) -> None:
    runs.cluster.trouble = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    running = asyncio.create_task(runs.run("one"))
    await soon(runs.cluster.wait_for(2))
    runs.child.cancel("run-1")
    finished = await running
    assert (finished.state, finished.error) == ("cancelled", "it was cancelled before its code began")
    assert not runs.cluster.jobs
    assert not runs.child.alive


async def test_a_run_whose_lease_is_lost_before_its_pod_is_there_leaves_nothing(runs: Runs) -> None:
    runs.cluster.trouble = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    running = asyncio.create_task(runs.run("one"))
    await soon(runs.cluster.wait_for(2))
    await soon(runs.child.kill())
    assert (await running).state == "crashed"
    assert not runs.cluster.jobs


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image: flows:1"}}},
            "its pod cannot start: ImagePullBackOff: no such image: flows:1",
        ),
        (
            {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}},
            "ended before a run began, with code 1\n  /usr/bin/python: No module named penstock",
        ),
    ],
)
async def test_a_pod_that_cannot_start_ends_the_run_with_the_reason(
    runs: Runs, trouble: dict[str, Any], told: str
) -> None:
    runs.cluster.trouble = trouble
    finished = await runs.run("one")
    assert (finished.state, finished.told) == ("crashed", False)
    assert told in (finished.error or "")
    assert not runs.cluster.jobs
    assert not runs.child.alive  # the next run gets another place


async def test_what_a_pod_waits_for_is_in_the_log_of_the_run_and_ends_it_after_some_time(cluster: FakeCluster) -> None:
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes have room"}
    quick = POOL.model_copy(update={"kubernetes": Kubernetes(start=1)})
    async with placed(cluster, quick) as runs:
        cluster.trouble = {"state": {}, "pod_reason": {"conditions": [full]}}
        finished = await runs.run("one")
    assert finished.error == "its pod did not start within 1 s: Unschedulable: 0/3 nodes have room"
    assert runs.lines == ["its pod is not there yet: Unschedulable: 0/3 nodes have room"]


async def test_what_the_cluster_refuses_is_told_in_its_words(runs: Runs) -> None:
    runs.cluster.refusal = 403, "jobs.batch is forbidden: exceeded quota"
    finished = await runs.run("one")
    assert finished.state == "crashed"
    assert re.fullmatch(r"the cluster refuses POST .*/jobs \(403\): jobs.batch is .* quota", finished.error or "")


async def test_a_cluster_that_starts_no_pods_is_given_no_more_runs_until_it_does(runs: Runs) -> None:
    runs.cluster.refusal = 500, "etcd is away"
    assert (await runs.run("one")).state == "crashed"
    with pytest.raises(ChildStartError, match="etcd is away"):
        await runs.place.start()
    runs.cluster.refusal = None
    assert "one" in (await soon(runs.place.start())).flows


async def test_an_image_that_holds_nothing_is_told_before_any_run(cluster: FakeCluster) -> None:
    cluster.trouble = {"state": {"waiting": {"reason": "InvalidImageName", "message": "flows::1"}}}
    with pytest.raises(ChildStartError, match="its pod cannot start: InvalidImageName: flows::1"):
        async with placed(cluster):
            pass


async def test_a_cluster_that_is_away_is_told(cluster: FakeCluster) -> None:
    cluster.configuration.host = "http://127.0.0.1:9"
    away = ApiCluster("flows", cluster.configuration)
    with pytest.raises(ClusterError, match="the cluster does not answer GET /apis/batch/v1/namespaces/flows/jobs/j"):
        await away.job("j")
    await away.close()


async def test_without_any_cluster_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(ClusterError, match=r"no cluster is known: .*set KUBECONFIG, or run the worker in the cluster"):
        await ApiCluster().job("j")


async def first_process(name: str, patience: str) -> asyncio.subprocess.Process:
    """As in a pod."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "penstock.services.worker.pod"),
        env={**os.environ, "PENSTOCK_JOB": f"{name}-{os.getpid()}", "PENSTOCK_JOB_PATIENCE": patience},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_pod_that_no_worker_comes_for_ends_and_says_so() -> None:
    process = await first_process("lonely", "0.05")
    _, said = await soon(process.communicate())
    assert process.returncode == 1
    assert b"no worker has come" in said


async def test_a_pod_whose_worker_has_gone_ends_by_itself() -> None:
    process = await first_process("orphan", "60")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "penstock.services.worker.pod", "child"),
        env={**os.environ, "PENSTOCK_JOB": f"orphan-{os.getpid()}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.close()  # as a lost connection does it
    await soon(child.wait())
    assert await soon(process.wait()) == 0


async def test_a_pod_that_is_removed_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_JOB", f"removed-{os.getpid()}")
    process = await first_process("removed", "60")
    with await asyncio.to_thread(pod.attend):
        process.send_signal(signal.SIGTERM)
        assert await soon(process.wait()) == 143
