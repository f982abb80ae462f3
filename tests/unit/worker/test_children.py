"""Real child processes that carry out runs, well and badly behaved ones."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.services.worker.children import Child, ChildBusyError, ChildGoneError, ChildStartError
from penstock.services.worker.frames import (
    TO_CHILD,
    Execute,
    Finished,
    FrameBuffer,
    Heartbeat,
    Log,
    Started,
    TaskFinished,
    encode,
)

FLOWS = '''
import asyncio, contextvars, logging, multiprocessing, os, re, subprocess, sys, threading, time
from pathlib import Path
from penstock.flows import FlowTimeoutError, flow, get_logger, get_run_context, task

SEEN = contextvars.ContextVar("seen", default=0)

@task
def touch(name: str) -> str:
    """Adds a line to a file: a side effect that can be counted."""
    with open(name, "a") as file:
        file.write(f"{os.getpid()}\\n")
    return name.upper()

@task
async def atouch(name: str) -> str:
    return touch.fn(name)

@task
def breaks():
    raise LookupError("no such truck")

@flow(limits=["erp"], retries=2, retry_delay=[1, 5], timeout=60)
def two_steps(name: str, times: int = 2) -> list[str]:
    """Touches a file."""
    return [touch(name) for _ in range(times)]

@flow
async def gathers(name: str, times: int = 3) -> list[str]:
    return list(await asyncio.gather(*[atouch(name) for _ in range(times)], return_exceptions=False))

@flow
async def mixes(name: str) -> list[str]:
    return [touch(name), await atouch(name), two_steps(name, 1)[0]]

@flow
def survives_a_task() -> str:
    try:
        breaks()
    except LookupError as error:
        return str(error)

@flow
def speaks():
    print("printed")
    get_logger().warning("logged")
    logging.getLogger("theirs").info("theirs")
    print("to stderr", file=sys.stderr)
    os.system("echo from the shell")
    subprocess.run(["echo", "from a subprocess"], stdout=sys.stdout, check=True)
    os.write(1, b"raw bytes\\n")
    sys.stdout.buffer.write(b"buffered bytes\\n")
    print("null \\0 and surrogate \\ud800")
    print("no line end", end="")

@flow
def reads_stdin() -> str:
    return sys.stdin.read()

@flow
def shows_context() -> dict:
    run = get_run_context()
    SEEN.set(SEEN.get() + 1)
    return {"run": run.run_id, "attempt": run.attempt, "cause": run.correlationid, "hops": run.hops, "seen": SEEN.get()}

@flow
def raises():
    raise ValueError("the bridge is closed")

@flow
def returns_a_lock():
    return threading.Lock()

@flow
def exits(code: int = 3):
    sys.exit(code)

@flow
def exits_at_once():
    os._exit(3)

@flow
def segfaults():
    import faulthandler
    faulthandler._sigsegv()

@flow
def forks() -> int:
    os.fork()
    return os.getpid()

@flow
def forks_and_fails():
    if os.fork() == 0:
        raise ValueError("in the copy")
    os.wait()

@flow
def uses_a_pool(name: str) -> list[str]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(touch, [name, name])

@flow
def naps():
    print("napping")
    time.sleep(600)

@flow
async def anaps():
    print("napping")
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up")

@flow
def chatters(name: str):
    print("napping")
    while True:
        print("line")
        touch(name)

@flow
async def achatters(name: str):
    print("napping")
    while True:
        print("line")
        await atouch(name)

@flow
def leaves_a_caller(name: str):
    def call_when_it_is_over():
        ended.wait()
        try:
            touch(name)
        except BaseException as error:
            told.append(repr(error))
        heard.set()
    threading.Thread(target=contextvars.copy_context().run, args=(call_when_it_is_over,)).start()

ended, heard, told = threading.Event(), threading.Event(), []

@flow
def asks_what_was_told() -> list[str]:
    ended.set()
    heard.wait()
    return told

@flow
async def blocks_the_loop():
    print("napping")
    time.sleep(600)

@flow(timeout=0.05)
def too_long():
    time.sleep(600)

@flow(timeout=0.05)
async def atoo_long():
    await asyncio.sleep(600)

@flow(timeout=60)
async def its_own_timer():
    raise FlowTimeoutError("its-own-timer", 60)

@flow(timeout=60)
async def a_timer_within():
    raise FlowTimeoutError("another", 2)

@flow(timeout=0.05)
def holds_the_interpreter():
    re.match(r"(a+)+$", "a" * 64 + "b")

@flow
def holds_on():
    try:
        print("napping")
    except BaseException:
        pass  # it may be asked to end before print returns, and holds on all the same
    re.match(r"(a+)+$", "a" * 64 + "b")

@task(timeout=0.01)
def never_ends():
    threading.Event().wait()

@flow
def leaves_a_thread():
    never_ends()

@flow
def spawns() -> int:
    process = subprocess.Popen(["sleep", "600"])
    print(f"napping {process.pid}")
    time.sleep(600)
'''
BROKEN = "import no_such_library\n"
numbers = count()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(FLOWS)
    (tmp_path / "broken.py").write_text(BROKEN)
    return tmp_path


@asynccontextmanager
async def a_child(project: Path, *modules: str, **options: Any) -> AsyncIterator[Child]:
    child = await Child.start(modules or ("jobs.py", "broken.py"), cwd=project, **options)
    try:
        yield child
    finally:
        await child.kill()


@pytest.fixture
async def child(project: Path) -> AsyncIterator[Child]:
    async with a_child(project, grace=0.2) as started:
        yield started


class Heard:
    """What a run told its worker."""

    def __init__(self) -> None:
        self.tasks: list[TaskFinished] = []
        self.logs: list[Log] = []
        self.started: list[Started] = []
        self.napping = asyncio.Event()

    async def on_task(self, call: TaskFinished) -> None:
        self.tasks.append(call)

    def on_log(self, line: Log) -> None:
        self.logs.append(line)
        if line.line.startswith("napping"):
            self.napping.set()

    @property
    def lines(self) -> list[str]:
        return [log.line for log in self.logs]

    def journal(self) -> dict[str, bytes]:
        return {call.call: call.result for call in self.tasks if call.state == "completed"}


def order(flow: str, *, journal: dict[str, bytes] | None = None, **parameters: Any) -> Execute:
    body = json.dumps(parameters).encode()
    return Execute(run_id=f"run-{next(numbers)}", epoch=7, flow=flow, parameters=body, journal=journal or {})


async def run(child: Child, wanted: Execute | str, heard: Heard | None = None, **parameters: Any) -> Finished:
    heard = heard or Heard()
    what = order(wanted, **parameters) if isinstance(wanted, str) else wanted
    return await asyncio.wait_for(
        child.execute(what, on_task=heard.on_task, on_log=heard.on_log, on_started=heard.started.append), 30
    )


def value(finished: Finished) -> Any:
    assert finished.state == "completed", finished
    return json.loads(finished.result)


async def test_a_child_tells_its_flows_and_what_is_wrong(child: Child) -> None:
    found = child.flows["two-steps"]
    assert (found.module, found.limits, found.retries, found.retry_delays) == ("jobs", ["erp"], 2, [1.0, 5.0])
    assert (found.timeout, found.doc, found.parameters["required"]) == (60.0, "Touches a file.", ["name"])
    [problem] = child.problems
    assert problem.module == "broken.py"
    assert "No module named 'no_such_library'" in problem.reason


async def test_a_run_is_carried_out_and_its_tasks_are_told(child: Child, project: Path) -> None:
    heard = Heard()
    finished = await run(child, "two-steps", heard, name="a.txt")
    assert value(finished) == ["A.TXT", "A.TXT"]
    assert [(call.name, call.state, call.result, call.epoch) for call in heard.tasks] == [
        ("touch", "completed", b'"A.TXT"', 7)
    ] * 2
    assert heard.tasks[0].call != heard.tasks[1].call
    assert heard.started[0].at <= heard.tasks[0].started <= heard.tasks[0].ended <= finished.at
    assert (project / "a.txt").read_text() == f"{child.pid}\n" * 2


@pytest.mark.parametrize("flow", ["two-steps", "gathers", "mixes"])
async def test_a_run_that_gets_its_journal_again_runs_no_finished_task(child: Child, project: Path, flow: str) -> None:
    first, second = Heard(), Heard()
    result = value(await run(child, flow, first, name="a.txt"))
    times = len((project / "a.txt").read_text().splitlines())
    again = await run(child, order(flow, journal=first.journal(), name="a.txt"), second)
    assert value(again) == result
    assert second.tasks == []
    assert len((project / "a.txt").read_text().splitlines()) == times


async def test_the_code_behind_a_task_waits_for_its_journal(child: Child, project: Path) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    async def on_task(call: TaskFinished) -> None:
        asked.set()
        await gate.wait()

    running = asyncio.create_task(child.execute(order("two-steps", name="a.txt"), on_task=on_task))
    await asyncio.wait_for(asked.wait(), 10)
    assert (await run_ping(child), (project / "a.txt").read_text()) == (True, f"{child.pid}\n")
    gate.set()
    assert value(await running) == ["A.TXT", "A.TXT"]


async def run_ping(child: Child) -> bool:
    """Whether the child has given a sign of life after now: time enough to have gone on wrongly."""
    before = child.silent_for()
    async with asyncio.timeout(10):
        while child.silent_for() >= before:
            before = child.silent_for()
            await asyncio.sleep(0.02)
    return True


async def test_a_journal_that_refuses_ends_the_child_and_the_run(child: Child, project: Path) -> None:
    async def refuses(call: TaskFinished) -> None:
        raise PermissionError("epoch 7 is stale")

    with pytest.raises(PermissionError, match="stale"):
        await child.execute(order("two-steps", name="a.txt"), on_task=refuses)
    assert not child.alive
    assert (project / "a.txt").read_text() == f"{child.pid}\n"


async def test_a_failed_task_is_told_and_can_be_caught(child: Child) -> None:
    heard = Heard()
    assert value(await run(child, "survives-a-task", heard)) == "no such truck"
    assert [(call.state, call.error) for call in heard.tasks] == [("failed", "LookupError: no such truck")]


async def test_everything_said_becomes_log_lines_and_harms_no_frame(child: Child) -> None:
    heard = Heard()
    assert (await run(child, "speaks", heard)).state == "completed"
    said = {(log.level, log.line) for log in heard.logs}
    assert said == {
        ("INFO", "printed"),
        ("WARNING", "logged"),
        ("INFO", "theirs"),
        ("WARNING", "to stderr"),
        ("INFO", "from the shell"),
        ("INFO", "from a subprocess"),
        ("INFO", "raw bytes"),
        ("INFO", "buffered bytes"),
        ("INFO", "null ␀ and surrogate ?"),
        ("INFO", "no line end"),
    }
    assert {log.run_id for log in heard.logs} == {heard.started[0].run_id}


async def test_a_run_has_no_stdin(child: Child) -> None:
    assert value(await run(child, "reads-stdin")) == ""


async def test_a_run_knows_where_it_comes_from_and_leaves_nothing_behind(child: Child) -> None:
    for _ in range(2):
        wanted = Execute(run_id="r", epoch=1, flow="shows-context", attempt=3, correlationid="c", hops=4)
        assert value(await run(child, wanted)) == {"run": "r", "attempt": 3, "cause": "c", "hops": 4, "seen": 1}


async def test_a_flow_can_be_named_with_its_module(child: Child) -> None:
    assert value(await run(child, "jobs:reads_stdin")) == ""
    assert value(await run(child, "jobs:reads-stdin")) == ""


@pytest.mark.parametrize(
    ("flow", "parameters", "state", "reason"),
    [
        ("raises", {}, "failed", r"ValueError: the bridge is closed"),
        ("exits", {}, "failed", r"the flow called sys.exit\(3\)"),
        ("exits", {"code": 0}, "failed", r"the flow called sys.exit\(0\)"),
        ("returns-a-lock", {}, "failed", r"'returns-a-lock' cannot be kept: an object of type _thread.lock"),
        ("two-steps", {"times": "many"}, "failed", r"name is missing; times: Input should be a valid integer"),
        ("nowhere", {}, "failed", r"no flow 'nowhere' .*no_such_library"),
        ("too-long", {}, "timed_out", r"longer than its timeout of 0.05 s"),
        ("atoo-long", {}, "timed_out", r"longer than its timeout of 0.05 s"),
        ("its-own-timer", {}, "timed_out", r"it took longer than its timeout of 60 s"),
        ("a-timer-within", {}, "failed", r"FlowTimeoutError: flow 'another' took longer than its timeout of 2 s"),
    ],
)
async def test_a_run_that_ends_badly_says_why_and_the_child_lives_on(
    child: Child, flow: str, parameters: dict[str, Any], state: str, reason: str
) -> None:
    finished = await run(child, flow, **parameters)
    assert finished.state == state
    assert re.search(reason, finished.error or ""), finished.error
    assert value(await run(child, "reads-stdin")) == ""


@pytest.mark.parametrize(
    ("flow", "state", "reason"),
    [
        ("exits-at-once", "crashed", r"its process exited with code 3"),
        ("segfaults", "crashed", r"its process was killed by SIG(SEGV|ABRT)"),
        ("holds-the-interpreter", "timed_out", r"timeout of 0.05 s, could not be interrupted, and was killed"),
    ],
)
async def test_a_run_that_takes_its_process_along_says_why(child: Child, flow: str, state: str, reason: str) -> None:
    finished = await run(child, flow)
    assert finished.state == state
    assert re.search(reason, finished.error or ""), finished.error
    assert not child.alive
    with pytest.raises(ChildGoneError):
        await run(child, "reads-stdin")


async def test_a_dying_interpreter_leaves_its_stack(child: Child) -> None:
    finished = await run(child, "segfaults")
    assert "jobs.py" in (finished.traceback or "")


async def test_a_traceback_shows_the_users_code_alone(child: Child) -> None:
    finished = await run(child, "raises")
    assert "jobs.py" in (finished.traceback or "")
    assert "penstock" not in (finished.traceback or "")


async def test_parameters_that_do_not_fit_never_start(child: Child) -> None:
    heard = Heard()
    assert (await run(child, "two-steps", heard)).state == "failed"
    assert heard.started == []


async def test_a_flow_that_forks_ends_once(child: Child) -> None:
    assert value(await run(child, "forks")) == child.pid
    assert (await run(child, "forks-and-fails")).state == "completed"
    assert value(await run(child, "reads-stdin")) == ""


async def test_tasks_in_forked_processes_run_as_plain_functions(child: Child, project: Path) -> None:
    heard = Heard()
    assert value(await run(child, "uses-a-pool", heard, name="a.txt")) == ["A.TXT", "A.TXT"]
    assert heard.tasks == []
    assert len((project / "a.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("flow", ["naps", "anaps"])
@pytest.mark.parametrize("reason", ["cancelled", "timed_out"])
async def test_a_cancelled_run_ends_and_its_child_lives_on(project: Path, flow: str, reason: str) -> None:
    async with a_child(project) as child:
        heard = Heard()
        finished = await interrupted(child, flow, heard, lambda run_id: child.cancel(run_id, reason))
        assert finished.state == reason
        assert flow == "naps" or heard.lines == ["napping", "cleaned up"]
        assert value(await run(child, "reads-stdin")) == ""


@pytest.mark.parametrize("flow", ["blocks-the-loop", "holds-on"])
async def test_code_that_cannot_be_cancelled_is_killed(child: Child, flow: str) -> None:
    finished = await interrupted(child, flow, Heard(), child.cancel)
    assert finished.state == "cancelled"
    assert "its process was killed" in (finished.error or "")
    assert not child.alive


async def test_a_child_without_a_sign_of_life_is_killed(project: Path) -> None:
    async with a_child(project, silence=0.5, heartbeat=0.05) as child:
        finished = await interrupted(child, "holds-on", Heard(), lambda _: None)
        assert finished.state == "crashed"
        assert "no sign of life for 0.5 s" in (finished.error or "")


async def interrupted(child: Child, flow: str, heard: Heard, act: Callable[[str], object]) -> Finished:
    """Start a run that naps, do something once it does, and give its end."""
    wanted = order(flow)
    running = asyncio.create_task(run(child, wanted, heard))
    await asyncio.wait_for(heard.napping.wait(), 10)
    act(wanted.run_id)
    return await running


@pytest.mark.parametrize("flow", ["chatters", "achatters"])
async def test_a_run_cancelled_at_any_moment_ruins_neither_the_channel_nor_the_journal(
    project: Path, flow: str
) -> None:
    async with a_child(project) as child:
        for lines in range(0, 20, 2):
            heard = Heard()
            finished = await cancelled_after(child, order(flow, name=f"{lines}.txt"), heard, lines)
            assert finished.state == "cancelled"
            done = (
                len((project / f"{lines}.txt").read_text().splitlines()) if (project / f"{lines}.txt").exists() else 0
            )
            assert len(heard.tasks) in (done, done - 1)  # the call that was cut short may have done its deed
            assert value(await run(child, "reads-stdin")) == ""


async def cancelled_after(child: Child, wanted: Execute, heard: Heard, lines: int) -> Finished:
    """Cancel a run as soon as so many lines were heard of it."""

    def on_log(line: Log) -> None:
        heard.on_log(line)
        if len(heard.logs) == lines + 1:
            child.cancel(wanted.run_id)

    return await asyncio.wait_for(child.execute(wanted, on_task=heard.on_task, on_log=on_log), 30)


@pytest.mark.parametrize("flow", ["naps", "anaps"])
async def test_a_run_cancelled_before_it_was_taken_up_ends(project: Path, flow: str) -> None:
    async with a_child(project) as child:
        wanted = order(flow)
        running = asyncio.create_task(run(child, wanted))
        while not child.busy:
            await asyncio.sleep(0)
        child.cancel(wanted.run_id)
        assert (await running).state == "cancelled"
        assert value(await run(child, "reads-stdin")) == ""


async def test_a_thread_that_outlives_its_run_cannot_journal(child: Child, project: Path) -> None:
    heard = Heard()
    assert (await run(child, "leaves-a-caller", heard, name="a.txt")).state == "completed"
    [told] = value(await run(child, "asks-what-was-told", heard))
    assert told.startswith("NotInRunError")
    assert heard.tasks == []


async def test_cancelling_another_run_changes_nothing(child: Child) -> None:
    def first_another(run_id: str) -> None:
        child.cancel("another")
        child.cancel(run_id)

    assert (await interrupted(child, "naps", Heard(), first_another)).state == "cancelled"


async def test_a_killed_child_crashes_its_run(child: Child) -> None:
    finished = await interrupted(child, "naps", Heard(), lambda _: os.kill(child.pid, signal.SIGKILL))
    assert (finished.state, finished.epoch) == ("crashed", 7)
    assert "was killed by SIGKILL" in (finished.error or "")


async def test_what_a_run_has_spawned_is_killed_with_it(child: Child) -> None:
    heard = Heard()
    wanted = order("spawns")
    running = asyncio.create_task(run(child, wanted, heard))
    await asyncio.wait_for(heard.napping.wait(), 10)
    grandchild = int(heard.lines[0].split()[1])
    await child.kill()
    assert (await running).state == "crashed"
    async with asyncio.timeout(10):
        while is_running(grandchild):
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_giving_up_on_a_run_ends_its_child(child: Child) -> None:
    heard = Heard()
    running = asyncio.create_task(run(child, order("naps"), heard))
    await asyncio.wait_for(heard.napping.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not child.alive


async def test_a_child_with_the_rest_of_a_run_says_so(child: Child) -> None:
    heard = Heard()
    finished = await run(child, "leaves-a-thread", heard)
    assert (finished.state, finished.spent, child.spent) == ("failed", True, True)
    assert [call.state for call in heard.tasks] == ["timed_out"]


async def test_a_child_takes_one_run_at_a_time(child: Child) -> None:
    heard = Heard()
    running = asyncio.create_task(run(child, order("naps"), heard))
    await asyncio.wait_for(heard.napping.wait(), 10)
    with pytest.raises(ChildBusyError):
        await run(child, "reads-stdin")
    await child.kill()
    await running


async def test_a_stopped_child_leaves_by_itself(project: Path) -> None:
    async with a_child(project) as child:
        assert (child.rss() or 0) > 1_000_000
        await child.stop(timeout=30)
        assert (child.returncode, child.alive, child.rss()) == (0, False, None)


async def test_a_child_leaves_when_its_worker_is_gone(child: Child) -> None:
    heard = Heard()
    running = asyncio.create_task(run(child, order("naps"), heard))
    await asyncio.wait_for(heard.napping.wait(), 10)
    pipe = child._transport.get_pipe_transport(0)
    assert pipe is not None
    pipe.close()
    assert (await running).state == "crashed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os; os._exit(9)", "exited with code 9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    ],
)
async def test_a_module_that_takes_the_process_along_is_told(project: Path, text: str, reason: str) -> None:
    (project / "deadly.py").write_text(text)
    with pytest.raises(ChildStartError, match=rf"{reason}.* while it imported deadly.py"):
        await Child.start(["deadly.py"], cwd=project)


async def test_a_module_that_never_ends_importing_is_told(project: Path) -> None:
    (project / "endless.py").write_text("import threading; threading.Event().wait()")
    with pytest.raises(ChildStartError, match=r"did not come up within 0.5 s while it imported endless.py"):
        await Child.start(["endless.py"], cwd=project, timeout=0.5)


async def test_what_modules_print_goes_to_the_childs_own_log(project: Path) -> None:
    (project / "chatty.py").write_text(FLOWS + "\nprint('imported')\n")
    lines: list[Log] = []
    async with a_child(project, "chatty.py", on_log=lines.append):
        assert [(line.run_id, line.line) for line in lines] == [("", "imported")]


async def test_a_child_imports_nothing_of_the_server(project: Path) -> None:
    (project / "lists.py").write_text(
        "import sys\nfrom penstock.flows import flow\n"
        "@flow\ndef modules() -> list[str]:\n    return sorted(sys.modules)\n"
    )
    async with a_child(project, "lists.py") as child:
        found = {name.split(".")[0] for name in value(await run(child, "modules"))}
        assert not found & {
            "sqlalchemy",
            "faststream",
            "redis",
            "fastapi",
            "starlette",
            "typer",
            "slack_sdk",
            "aiokafka",
        }


async def test_a_child_ends_itself_when_nobody_has_told_it_that_its_run_goes_on(child: Child) -> None:
    wanted = msgspec.structs.replace(order("naps"), until=time.monotonic() + 0.3)
    finished = await run(child, wanted)
    assert (finished.state, child.returncode) == ("crashed", -signal.SIGKILL)


async def test_a_run_that_comes_when_its_time_is_up_is_not_begun(child: Child, project: Path) -> None:
    late = msgspec.structs.replace(order("two-steps", name="touched"), until=time.monotonic())
    assert (await run(child, late)).state == "crashed"
    assert not (project / "touched").exists()


class OtherMachine:
    """The transport of a child that is elsewhere.  frames: what it was told."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self._buffer = FrameBuffer(TO_CHILD)

    def write(self, data: bytes) -> None:
        self.frames += self._buffer.feed(data)

    def is_closing(self) -> bool:
        return False

    def get_pipe_transport(self, fd: int) -> Any:
        return self


@settings(max_examples=50)
@given(ahead=st.floats(-1e6, 1e6), late=st.floats(0, 5))
async def test_a_child_is_told_by_its_own_clock_when_its_lease_ends_and_never_a_later_time(
    ahead: float, late: float
) -> None:
    there, wanted = OtherMachine(), order("naps")
    child, until = Child(None, 5.0, 60.0), time.monotonic() + 10
    child._transport = there  # type: ignore[assignment]
    child.pipe_data_received(1, encode(Heartbeat(at=0, clock=time.monotonic() - late + ahead)))
    running = asyncio.create_task(run(child, msgspec.structs.replace(wanted, until=until)))
    while not there.frames:
        await asyncio.sleep(0)
    child.hold(wanted.run_id, until + 5)
    child.pipe_data_received(1, encode(Finished(run_id=wanted.run_id, epoch=7, state="completed", at=0)))
    await running
    for frame, ours in zip(there.frames, (until, until + 5), strict=True):
        assert ours + ahead - late - 0.5 < frame.until <= ours + ahead + 1e-6


async def test_a_child_that_is_told_in_time_goes_on(child: Child, project: Path) -> None:
    heard = Heard()
    wanted = msgspec.structs.replace(order("naps"), until=time.monotonic() + 3.0)
    running = asyncio.create_task(run(child, wanted, heard))
    while not heard.started:
        await asyncio.sleep(0.01)
    child.hold(wanted.run_id, time.monotonic() + 600)
    child.hold("another", time.monotonic())
    while time.monotonic() < wanted.until + 0.2:
        assert child.alive
        await asyncio.sleep(0.05)
    child.cancel(wanted.run_id)
    assert (await running).state == "cancelled"
