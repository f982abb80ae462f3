"""Where runs are carried out: one contract for processes that are spawned and for those that are forked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.kubernetes import a_cluster

from penstock.automations.pools import Kind, Pool
from penstock.services.worker.children import Child, ChildStartError
from penstock.services.worker.cluster import ApiCluster
from penstock.services.worker.containers import Contained, run_command
from penstock.services.worker.crew import Crew, Wear
from penstock.services.worker.frames import Execute, Finished, FlowInfo, Log, Problem, TaskFinished
from penstock.services.worker.places import Forked, Making, Place, Spawned
from penstock.services.worker.pods import Podded

FLOWS = """
import os, subprocess, sys, threading, time
from penstock.flows import flow, task

SEEN = []

@task
def touch(name: str) -> str:
    open(name, "a").close()
    return name.upper()

@flow
def two_steps(name: str) -> list[str]:
    return [touch(name), touch(name)]

@flow
def counts() -> int:
    SEEN.append(1)
    return len(SEEN)

@flow
def raises():
    raise ValueError("the bridge is closed")

@flow
def exits():
    sys.exit(3)

@flow
def exits_at_once():
    os._exit(3)

@flow
def returns_a_lock():
    return threading.Lock()

@flow
def forks() -> int:
    if os.fork() == 0:
        raise ValueError("in the copy")
    os.wait()
    return os.getpid()

@flow(timeout=0.1)
async def blocks_the_loop():
    time.sleep(600)

@flow
def eats(mebibytes: int) -> None:
    kept = bytearray(mebibytes << 20)
    kept[:: 4096] = bytes(len(range(0, len(kept), 4096)))
    time.sleep(600)

@flow
def spawns() -> None:
    started = subprocess.Popen(["sleep", "600"])
    print("napping", started.pid)
    time.sleep(600)
"""
DOCKER = """
import os, signal, subprocess, sys
from pathlib import Path

words = sys.argv[1:]
kept = Path(sys.argv[0]).parent
if words[:2] == ["rm", "--force"]:
    os.killpg(int((kept / words[2]).read_text()), signal.SIGKILL)
elif words[0] == "run":
    command = [sys.executable, *words[words.index("flows:1") + 2 :]]
    container = subprocess.Popen(command, start_new_session=True)
    (kept / words[words.index("--name") + 1]).write_text(str(container.pid))
    code = container.wait()
    sys.exit(code if code >= 0 else 128 - code)
else:
    sys.exit("docker: unknown command")
"""
IMAGE = Pool(name="boxed", kind=Kind.DOCKER, image="flows:1")
IN_PODS = Pool(name="podded", kind=Kind.KUBERNETES, image="flows:1")
numbers = count(1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(FLOWS)
    (tmp_path / "broken.py").write_text("import no_such_library")
    return tmp_path


@pytest.fixture
def making(project: Path) -> Making:
    return Making(["jobs.py", "broken.py"], cwd=project, grace=0.2)


@pytest.fixture(params=["spawned", "forked", "contained", "podded"])
async def place(request: pytest.FixtureRequest, making: Making, tmp_path: Path) -> AsyncIterator[Place]:
    kinds: dict[str, Callable[[], Place]] = {
        "spawned": lambda: Spawned(making),
        "forked": lambda: Forked(making),
        "contained": lambda: Contained(making, IMAGE, stand_in_for_docker(tmp_path)),
        "podded": lambda: Podded(making, IN_PODS, ApiCluster("flows", cluster.configuration), look=0.02),
    }
    if request.param != "podded":
        async with opened(kinds[request.param]()) as found:
            yield found
        return
    async with a_cluster(tmp_path) as cluster, opened(kinds["podded"]()) as found:
        yield found
        assert not cluster.jobs  # every one has been removed


def stand_in_for_docker(folder: Path) -> str:
    """A command that runs containers as processes beside it, which outlive it as containers would."""
    path = folder / "docker"
    path.write_text(f"#!{sys.executable}\n{DOCKER}")
    path.chmod(0o755)
    return str(path)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Place]:
    try:
        yield place
    finally:
        await place.stop()


@asynccontextmanager
async def a_child(place: Place) -> AsyncIterator[Child]:
    child = await place.start()
    try:
        yield child
    finally:
        await child.kill()


async def run(
    child: Child,
    flow: str,
    tasks: list[TaskFinished] | None = None,
    on_log: Callable[[Log], None] = lambda line: None,
    **parameters: Any,
) -> Finished:
    async def on_task(call: TaskFinished) -> None:
        if tasks is not None:
            tasks.append(call)

    body = json.dumps(parameters).encode()
    order = Execute(run_id=f"run-{next(numbers)}", epoch=1, flow=flow, parameters=body)
    async with asyncio.timeout(30):
        return await child.execute(order, on_task=on_task, on_log=on_log)


async def test_a_run_is_carried_out_and_its_tasks_are_told(place: Place, project: Path) -> None:
    tasks: list[TaskFinished] = []
    async with a_child(place) as child:
        assert "two-steps" in child.flows
        assert [problem.module for problem in child.problems] == ["broken.py"]
        finished = await run(child, "two-steps", tasks, name="a.txt")
    assert (finished.state, finished.result) == ("completed", b'["A.TXT","A.TXT"]')
    assert [(call.name, call.state) for call in tasks] == [("touch", "completed")] * 2
    assert (project / "a.txt").exists()


async def test_a_run_that_ends_badly_says_why_and_the_process_lives_on(place: Place) -> None:
    async with a_child(place) as child:
        for flow, reason in [
            ("raises", "ValueError: the bridge is closed"),
            ("exits", r"the flow called sys.exit\(3\)"),
            ("returns-a-lock", "cannot be kept: an object of type _thread.lock"),
            ("two-steps", "name is missing"),
            ("nowhere", "no flow 'nowhere' .*no_such_library"),
        ]:
            finished = await run(child, flow)
            assert finished.state == "failed"
            assert re.search(reason, finished.error or ""), finished.error
        assert (await run(child, "forks")).state == "completed"


@pytest.mark.parametrize(
    ("flow", "state", "reason"),
    [
        ("exits-at-once", "crashed", "exited with code 3"),
        ("blocks-the-loop", "timed_out", "could not be interrupted, and was killed"),
    ],
)
async def test_a_run_that_takes_its_process_along_says_why(place: Place, flow: str, state: str, reason: str) -> None:
    async with a_child(place) as child, a_child(place) as other:
        finished = await run(child, flow)
        assert (finished.state, child.alive) == (state, False)
        assert reason in (finished.error or "")
        assert (await run(other, "counts")).state == "completed"


async def test_a_killed_process_takes_along_what_it_started(place: Place) -> None:
    napping: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_log(line: Log) -> None:
        napping.set_result(int(line.line.split()[1]))

    async with a_child(place) as child:
        running = asyncio.create_task(run(child, "spawns", on_log=on_log))
        started = psutil.Process(await napping)
        await child.kill()
        assert (await running).state == "crashed"
        assert "SIGKILL" in ((await running).error or "")
        await asyncio.to_thread(gone, started)


def gone(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_a_process_that_is_stopped_leaves_by_itself(place: Place) -> None:
    child = await place.start()
    await child.stop()
    assert child.returncode == 0


@pytest.mark.parametrize("place", ["spawned", "forked", "contained"], indirect=True)  # the code of a pod is its image's
async def test_changed_code_is_for_those_that_start_afterwards(place: Place, project: Path) -> None:
    async with a_child(place) as before:
        (project / "jobs.py").write_text(FLOWS.replace("return len(SEEN)", "return 1_000"))
        async with opened(place.again()) as changed, a_child(changed) as after:
            assert [(await run(each, "counts")).result for each in (before, after)] == [b"1", b"1000"]


_WORKER = """
import asyncio, sys
from penstock.services.worker.places import Forked, Making, Spawned

async def main():
    child = await {"Forked": Forked, "Spawned": Spawned}[sys.argv[1]](Making(["jobs.py"])).start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["Spawned", "Forked"])
async def test_nothing_stays_when_the_worker_is_killed(project: Path, kind: str) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WORKER, kind), cwd=project, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    child = psutil.Process(int(await worker.stdout.readline()))
    others = psutil.Process(worker.pid).children()
    worker.kill()
    await worker.wait()
    for process in {child, *others}:
        await asyncio.to_thread(gone, process)


async def test_forked_processes_share_nothing_and_are_there_at_once(making: Making) -> None:
    async with opened(Forked(making)) as place, a_child(place) as first:
        assert [(await run(first, "counts")).result for _ in range(2)] == [b"1", b"2"]
        begun = asyncio.get_running_loop().time()
        async with a_child(place) as second:
            assert asyncio.get_running_loop().time() - begun < 0.2  # of a new interpreter: 0.3
            assert (await run(second, "counts")).result == b"1"


async def test_modules_that_start_threads_are_imported_by_each_process(making: Making, project: Path) -> None:
    text = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (project / "jobs.py").write_text(text + FLOWS)
    async with opened(Forked(making)) as place, a_child(place) as child:
        assert (await run(child, "counts")).result == b"1"


async def test_a_template_that_dies_takes_its_children_along_and_is_replaced(making: Making) -> None:
    async with opened(Forked(making)) as place, a_child(place) as child:
        (template,) = [each for each in psutil.Process().children() if each.pid == psutil.Process(child.pid).ppid()]
        os.kill(template.pid, signal.SIGKILL)
        assert await child.wait_exited() == -signal.SIGKILL
        async with a_child(place) as another:
            assert (await run(another, "counts")).state == "completed"


async def test_a_module_that_takes_the_template_along_is_told(making: Making, project: Path) -> None:
    (project / "jobs.py").write_text("import os; print('leaving'); os._exit(4)")
    async with opened(Forked(making)) as place:
        with pytest.raises(ChildStartError, match=r"while it imported jobs.py, broken.py(.|\n)*leaving"):
            await place.start()


@asynccontextmanager
async def a_crew(place: Place, wear: Wear) -> AsyncIterator[tuple[Crew, asyncio.Event]]:
    """One that has a child, and an event that is set whenever one becomes free."""
    changed = asyncio.Event()

    def loaded(flows: dict[str, FlowInfo], problems: list[Problem]) -> None:
        pass

    crew = Crew(place, 1, changed=changed.set, loaded=loaded, wear=wear)
    keeping = asyncio.create_task(crew.run())
    try:
        await changed.wait()
        yield crew, changed
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await crew.stop()


async def used(crew: Crew, changed: asyncio.Event, flow: str, **parameters: Any) -> tuple[int, Finished]:
    """Carry out a run in the crew's only child, and wait until there is one for the next.  Returns its process id."""
    child = crew.take()
    assert child is not None
    changed.clear()
    finished = await run(child, flow, **parameters)
    crew.put_back(child)
    await changed.wait()
    return child.pid, finished


@pytest.mark.parametrize("place", ["spawned", "forked"], indirect=True)  # engines watch containers
async def test_a_process_that_uses_too_much_memory_is_ended_with_the_reason(place: Place) -> None:
    async with a_crew(place, Wear(memory=150 << 20)) as (crew, changed):
        first, finished = await used(crew, changed, "eats", mebibytes=200)
        assert finished.state == "failed"
        assert re.search(r"it used [12]\d\d MiB, the pool allows 150 MiB", finished.error or ""), finished.error
        second, finished = await used(crew, changed, "counts")
        assert (finished.state, first == second) == ("completed", False)


@pytest.mark.parametrize("place", ["spawned", "forked"], indirect=True)
async def test_a_process_is_replaced_after_so_many_runs(place: Place) -> None:
    async with a_crew(place, Wear(runs=2)) as (crew, changed):
        used_by = [await used(crew, changed, "counts") for _ in range(4)]
    processes = [pid for pid, _ in used_by]
    assert processes[0] == processes[1] != processes[2] == processes[3]
    assert [finished.result for _, finished in used_by] == [b"1", b"2", b"1", b"2"]


async def test_processes_for_one_run_each_have_the_changed_code_and_keep_it_when_a_change_is_broken(
    making: Making, project: Path
) -> None:
    async with a_crew(Forked(replace(making, modules=["jobs.py"])), Wear(runs=1)) as (crew, changed):
        (project / "jobs.py").write_text(FLOWS.replace("return len(SEEN)", "return 1_000"))
        changed.clear()
        assert await crew.renew()
        await changed.wait()  # the one before has been retired, its successor is there
        assert (await used(crew, changed, "counts"))[1].result == b"1000"
        (project / "jobs.py").write_text("import no_such_library")
        assert not await crew.renew()
        assert [(await used(crew, changed, "counts"))[1].result for _ in range(2)] == [b"1000"] * 2


def test_a_container_gets_what_its_pool_says_and_no_value_stands_in_the_command() -> None:
    more = {"memory": 512 << 20, "cpus": 1.5, "network": "none", "environment": {"TOKEN": "s3cret"}}
    assert run_command(IMAGE.model_copy(update=more), "penstock-boxed-1") == [
        *("docker", "run", "--rm", "--interactive", "--init", "--name", "penstock-boxed-1"),
        *("--label", "penstock.pool=boxed", "--security-opt", "no-new-privileges", "--stop-timeout", "1"),
        *("--memory", "536870912", "--memory-swap", "536870912", "--cpus", "1.5", "--network", "none"),
        *("--env", "TOKEN", "flows:1", "python", "-P", "-m", "penstock.services.worker.child"),
    ]


async def test_a_missing_docker_is_told(making: Making) -> None:
    with pytest.raises(ChildStartError, match="needs the command `nowhere/docker`, which is not on PATH"):
        await Contained(making, IMAGE, "nowhere/docker").start()
