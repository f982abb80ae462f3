"""Apache Kafka for the tests: the released jars on Java 17 or later, in KRaft mode, with one node or three.

The jars come from Maven, once, into `.cache/kafka` (pom.xml lists them). Without Java but with a Docker engine the same
nodes run in the image's Java. Topics are never made by accident: auto-creation is off, as in production.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from filelock import FileLock
from tests.support.services.install import find, on_path
from tests.support.services.process import (
    Given,
    Service,
    ServiceFailedError,
    ServiceMissingError,
    free_port,
    in_a_thread,
    run,
    wait_until,
)

IMAGE = "apache/kafka:4.1.1"  # the same release as in pom.xml
_VARIABLE = "PENSTOCK_TEST_KAFKA"
_CACHE = Path(__file__).parents[3] / ".cache" / "kafka"
_POM = Path(__file__).with_name("pom.xml")
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


class KafkaNode(Service):
    """One broker that is a controller too. `port` and `controller_port` are chosen by the cluster."""

    name = "kafka"
    start_within = 120.0
    stop_within = 8.0  # the last of three finds no quorum to say goodbye to, and would wait for minutes

    def __init__(self, number: int, cluster: str, ports: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._number, self._cluster, self._ports = number, cluster, ports
        self._container = f"penstock-test-{cluster}-{number}"

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._ports[self._number][0]}"

    def ready(self) -> bool:
        with socket.socket() as probe:  # first without the client, which prints every refusal
            if probe.connect_ex(("127.0.0.1", self._ports[self._number][0])):
                return False
        return brokers(self.url) > 0

    def kill(self) -> None:
        """SIGKILL; a container is killed through the engine, since its client passes no SIGKILL on."""
        if self.running and java() is None:
            subprocess.run(["docker", "kill", self._container], check=False, capture_output=True)
        super().kill()

    def _prepare(self, folder: Path) -> None:
        (folder / "server.properties").write_text(self._properties(folder))
        storage = ["kafka.tools.StorageTool", "format", "-t", self._cluster, "-c", str(folder / "server.properties")]
        run([*self._java(folder, "64m"), *storage])

    def _command(self, folder: Path) -> Sequence[str]:
        return [*self._java(folder, "512m"), "kafka.Kafka", str(folder / "server.properties")]

    def _java(self, folder: Path, heap: str) -> list[str]:
        options = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Xshare:auto", _QUIET]
        program = java()
        if program is not None:
            return [program, *options, "-cp", f"{jars()}/*"]
        mount, user = f"{folder.parent}:{folder.parent}", f"{os.getuid()}:{os.getgid()}"
        docker = ["docker", "run", "--rm", "--init", "--network", "host", "--name", self._container, "--user", user]
        return [*docker, "--volume", mount, "--entrypoint", "java", IMAGE, *options, "-cp", "/opt/kafka/libs/*"]

    def _properties(self, folder: Path) -> str:
        port, controller = self._ports[self._number]
        size = len(self._ports)
        replicas = min(3, size)
        voters = ",".join(f"{n}@127.0.0.1:{ports[1]}" for n, ports in enumerate(self._ports))
        return "\n".join(
            [
                "process.roles=broker,controller",
                f"node.id={self._number}",
                f"controller.quorum.voters={voters}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
                f"log.dirs={folder}/log",
                "auto.create.topics.enable=false",
                "unclean.leader.election.enable=false",
                f"default.replication.factor={replicas}",
                f"min.insync.replicas={min(2, size)}",
                f"offsets.topic.replication.factor={replicas}",
                f"transaction.state.log.replication.factor={replicas}",
                f"transaction.state.log.min.isr={min(2, size)}",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.num.partitions=4",
                "group.initial.rebalance.delay.ms=0",  # waits for members that no test has
                "log.segment.delete.delay.ms=100",
                "log.index.size.max.bytes=1048576",  # else 20 MB are mapped for each of some thousand partitions
                "num.network.threads=2",
                "num.io.threads=4",
                "controlled.shutdown.enable=true",
                "broker.session.timeout.ms=6000",
                "",
            ]
        )


class Kafka:
    """A cluster of one or three nodes."""

    name = "kafka"

    def __init__(self, size: int = 1) -> None:
        cluster = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        while cluster.startswith("-"):  # the storage tool would take it for an option
            cluster = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        ports = [(free_port(), free_port()) for _ in range(size)]
        self.nodes = [KafkaNode(number, cluster, ports) for number in range(size)]

    @property
    def url(self) -> str:
        """As the bus takes it; add `?prefix=…` to keep tests apart."""
        return f"kafka://{self.bootstrap}"

    @property
    def bootstrap(self) -> str:
        """host:port of each node, with commas between."""
        return ",".join(node.url for node in self.nodes)

    @property
    def running(self) -> bool:
        return any(node.running for node in self.nodes)

    def start(self) -> None:
        """Start all nodes; returns once each is registered and serves."""
        provide()
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait_ready()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Return once every node has joined."""
        wait_until(lambda: brokers(self.bootstrap) >= len(self.nodes), within=60, what=f"{len(self.nodes)} Kafka nodes")

    def stop(self) -> None:
        """Stop all nodes; data stays."""
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """SIGKILL all nodes; data stays."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Stop, and start on the same ports with the same data."""
        self.stop()
        self.start()

    def delete_topics(self, prefix: str) -> None:
        """Remove the topics of one test."""
        delete_topics(self.bootstrap, prefix)


class GivenKafka(Given):
    """The brokers behind PENSTOCK_TEST_KAFKA (host:port, comma, …)."""

    name = "kafka"

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap.removeprefix("kafka://")
        self.url = f"kafka://{self.bootstrap}"

    def delete_topics(self, prefix: str) -> None:
        """Remove the topics of one test."""
        delete_topics(self.bootstrap, prefix)


def brokers(bootstrap: str) -> int:
    """How many brokers the cluster counts; 0 where none answers."""

    async def ask() -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
        try:
            await admin.start()
            return len((await admin.describe_cluster())["brokers"])
        except (KafkaError, OSError):
            return 0
        finally:
            await admin.close()

    return in_a_thread(ask())


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Remove every topic whose name begins with `prefix`."""

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            names = [name for name in await admin.list_topics() if name.startswith(prefix)]
            if names:
                await admin.delete_topics(names)
        finally:
            await admin.close()

    in_a_thread(delete())


@cache
def java() -> str | None:
    """A Java of version 17 or later; None where Docker stands in for it.  Raises ServiceMissingError."""
    found = _java_17()
    if found is not None or _docker_engine():
        return found
    return find(
        _java_17,
        what="Java 17 or later (or a Docker engine) for Kafka",
        packages=["default-jre-headless"],
        variable=_VARIABLE,
    )


@cache
def jars() -> Path:
    """The folder of Kafka's jars, filled by Maven where it is not.  Raises ServiceMissingError."""
    version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)<", _POM.read_text())
    if version is None:
        raise ServiceFailedError(f"{_POM.name} names no version of kafka_2.13")
    folder = _CACHE / version.group(1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _copy_jars(folder)
    return folder


def provide() -> None:
    """See to it that a node can run: Java and the jars, or Docker."""
    if java() is not None:
        jars()


def _copy_jars(folder: Path) -> None:
    maven = find(on_path("mvn"), what="Maven, to fetch Apache Kafka", packages=["maven"], variable=_VARIABLE)
    fresh = folder.with_name(folder.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    try:
        run([maven, "--batch-mode", "--quiet", "--file", str(_POM), *goal])
    except ServiceFailedError as error:
        first = str(error).splitlines()[0]
        raise ServiceMissingError(f"Maven could not fetch Apache Kafka ({first}); or set {_VARIABLE}") from None
    fresh.rename(folder)


def _java_17() -> str | None:
    home = os.environ.get("JAVA_HOME")
    for program in (str(Path(home) / "bin" / "java") if home else None, on_path("java")()):
        if program is not None and Path(program).exists():
            said = subprocess.run([program, "-version"], check=False, capture_output=True, text=True).stderr
            version = re.search(r'version "(\d+)', said)
            if version is not None and int(version.group(1)) >= 17:
                return program
    return None


def _docker_engine() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0
