"""A stand-in for a Kubernetes cluster: the API that Jobs are made by, whose pods are processes of this machine.

Of a Job's container it starts the command, with its `env` and nothing else of the manifest; what is executed in it is a
process beside that. Both are killed when the Job is removed. It refuses what the client's own models do not know.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from kubernetes_asyncio.client import ApiClient, Configuration

JOBS = "/apis/batch/v1/namespaces/{namespace}/jobs"
PODS = "/api/v1/namespaces/{namespace}/pods"


@dataclass
class FakeJob:
    """One Job and its only pod."""

    manifest: dict[str, Any]
    conditions: list[dict[str, str]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    pod_reason: dict[str, str] = field(default_factory=dict)
    has_pod: bool = True
    first: asyncio.subprocess.Process | None = None
    executed: list[asyncio.subprocess.Process] = field(default_factory=list)
    connections: list[web.WebSocketResponse] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["spec"]["template"]["spec"]["containers"][0]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.manifest["metadata"]["labels"]
        return found

    @property
    def pod(self) -> dict[str, Any]:
        state = self.state
        if self.first is not None and self.first.returncode is not None and "terminated" not in state:
            code = self.first.returncode
            state = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
        phase = "Running" if "running" in state else "Pending"
        if "terminated" in state:
            phase = "Succeeded" if state["terminated"]["exitCode"] == 0 else "Failed"
        status = {"phase": phase, **self.pod_reason, "containerStatuses": [{"name": "run", "state": state}]}
        return {"metadata": {"name": f"{self.name}-x7p4q"}, "status": status}

    def end(self) -> None:
        """Kill all that runs in its pod."""
        for process in (self.first, *self.executed):
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


class FakeCluster:
    """jobs: those that there are, by name.  made: every one that there ever was.  trouble: what the next pods get
    instead of a process.  refusal: what the API answers instead of making a Job: a status and a message.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.made: list[FakeJob] = []
        self.trouble: dict[str, Any] | None = None
        self.refusal: tuple[int, str] | None = None
        self.changed = asyncio.Condition()
        self._folder = folder
        self.configuration: Any = Configuration()

    def kubeconfig(self, folder: Path) -> str:
        """The path of a file that says how it is reached."""
        said = {
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "worker"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.configuration.host}}],
            "users": [{"name": "worker", "user": {"token": "t0ken"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(said))
        return str(path)

    async def wait_for(self, count: int) -> FakeJob:
        """Until so many Jobs have been made.  Returns the newest."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.made) >= count)
        return self.made[-1]

    async def wait_for_none(self) -> None:
        """Until every Job has been removed."""
        async with self.changed:
            await self.changed.wait_for(lambda: not self.jobs)

    async def remove(self, name: str) -> None:
        """As `kubectl delete job` does it."""
        self.jobs.pop(name).end()
        await self._tell()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def create(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            status, message = self.refusal
            return web.json_response({"kind": "Status", "message": message}, status=status)
        manifest = await request.json()
        if (lost := unknown_to_the_schema(manifest)) is not None:
            return web.json_response({"kind": "Status", "message": lost}, status=422)
        job = FakeJob(manifest)
        self.jobs[job.name] = job
        self.made.append(job)
        if self.trouble is None:
            await self.start(job)
        else:
            job.__dict__.update(self.trouble)
        await self._tell()
        return web.json_response(manifest, status=201)

    async def start(self, job: FakeJob) -> None:
        """Start what a pod begins with."""
        given = {each["name"]: each["value"] for each in job.container["env"]}
        job.first = await self._process(job.container["command"], given, stdin=asyncio.subprocess.DEVNULL)
        job.state = {"running": {}}

    async def job(self, request: web.Request) -> web.Response:
        job = self._of(request)
        return web.json_response({**job.manifest, "status": {"conditions": job.conditions}})

    async def delete(self, request: web.Request) -> web.Response:
        await self.remove(self._of(request).name)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def pods(self, request: web.Request) -> web.Response:
        _, _, name = request.query["labelSelector"].partition("=")
        job = self.jobs.get(name)
        return web.json_response({"items": [job.pod] if job is not None and job.has_pod else []})

    async def execute(self, request: web.Request) -> web.WebSocketResponse:
        """As the API does it: a channel number, then bytes; the end is told on channel 3."""
        job = self._of(request, request.match_info["name"].rpartition("-")[0])
        connection = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await connection.prepare(request)
        given = {each["name"]: each["value"] for each in job.container["env"]}
        process = await self._process(request.query.getall("command"), given, stdin=asyncio.subprocess.PIPE)
        job.executed.append(process)
        job.connections.append(connection)
        outputs = asyncio.gather(*(self._copy(process, channel, connection) for channel in (1, 2)))
        feeding = asyncio.create_task(self._feed(process, connection))
        code = await process.wait()
        with suppress(ConnectionError):
            await outputs
            await connection.send_bytes(b"\x03" + json.dumps(_status(code)).encode())
        await connection.close()
        await feeding
        return connection

    async def output(self, request: web.Request) -> web.Response:
        return web.Response(text="/usr/bin/python: No module named penstock\n")

    def _of(self, request: web.Request, name: str = "") -> FakeJob:
        job = self.jobs.get(name or request.match_info["name"])
        if job is None:
            raise web.HTTPNotFound(text=json.dumps({"kind": "Status", "message": "not found"}))
        return job

    async def _process(self, command: list[str], given: dict[str, str], stdin: int) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        outputs = pipe if stdin == pipe else asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *command[1:]),
            cwd=self._folder,
            env={**os.environ, **given},
            stdin=stdin,
            stdout=outputs,
            stderr=outputs,
            start_new_session=True,
        )

    @staticmethod
    async def _copy(process: asyncio.subprocess.Process, channel: int, connection: web.WebSocketResponse) -> None:
        reader = process.stdout if channel == 1 else process.stderr
        assert reader is not None
        while piece := await reader.read(32_768):
            await connection.send_bytes(bytes((channel,)) + piece)

    @staticmethod
    async def _feed(process: asyncio.subprocess.Process, connection: web.WebSocketResponse) -> None:
        assert process.stdin is not None
        async for message in connection:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                with suppress(ConnectionError):
                    process.stdin.write(message.data[1:])
                    await process.stdin.drain()
        process.stdin.close()


@asynccontextmanager
async def a_cluster(folder: Path) -> AsyncIterator[FakeCluster]:
    """One whose pods have `folder` as their working directory."""
    cluster = FakeCluster(folder)
    app = web.Application()
    app.router.add_post(JOBS, cluster.create)
    app.router.add_get(JOBS + "/{name}", cluster.job)
    app.router.add_delete(JOBS + "/{name}", cluster.delete)
    app.router.add_get(PODS, cluster.pods)
    app.router.add_get(PODS + "/{name}/exec", cluster.execute)
    app.router.add_get(PODS + "/{name}/log", cluster.output)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    cluster.configuration.host = f"http://{host}:{port}"
    try:
        yield cluster
    finally:
        for job in cluster.made:
            job.end()
        await runner.cleanup()


def unknown_to_the_schema(manifest: dict[str, Any]) -> str | None:
    """Keys and values that the client's models of the API lose or refuse; None where they keep everything."""
    client: Any = ApiClient.__new__(ApiClient)
    client.configuration = Configuration()
    client.client_side_validation = True

    class Answer:
        data = json.dumps(manifest)

    try:
        kept = client.sanitize_for_serialization(client.deserialize(Answer, "V1Job"))
    except (ValueError, TypeError) as error:
        return str(error)
    return None if kept == manifest else f"the API knows {kept}, not {manifest}"


def _status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"status": "Success"}
    cause = {"reason": "ExitCode", "message": str(code if code > 0 else 128 - code)}
    return {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
