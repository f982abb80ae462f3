"""Work pools as a project names them: how the runs of each are isolated, and what they may use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from penstock.automations.durations import parse_duration
from penstock.automations.kinds import Keys
from penstock.automations.problems import did_you_mean
from penstock.events.errors import PenstockError

DEFAULT = "default"
STOPPING = 20.0  # seconds that a process has to stop, beside the runs of its worker
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
# Names as Kubernetes has them; "" where none is given.
_DNS_LABEL = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"
_DNS_NAME = r"^([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)?$"
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


class UnknownPoolError(PenstockError):
    """The project names its pools, and this one is not among them."""


class PoolError(PenstockError):
    """What a pool shall be does not fit together; the text says what is missing."""


class Kind(StrEnum):
    """How the runs of a pool are isolated from each other."""

    INLINE = "inline"  # warm processes, one run after another in each
    PROCESS = "process"  # a fresh process for each run
    DOCKER = "docker"  # a container for each run
    KUBERNETES = "kubernetes"  # a Job of a cluster for each run


class Pull(StrEnum):
    """When a node fetches an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Order(StrEnum):
    """Which of the runs that wait is claimed first."""

    FAIR = "fair"  # priority, which waiting raises, and the keys of a flow take turns
    STRICT = "strict"  # the highest priority, then the longest due; what is low may wait for ever


def _bytes(value: object) -> object:
    """A size as people write it: "512MiB", "2 GB"."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    unit = _UNITS.get(found[2].upper())
    if unit is None:
        raise ValueError(f"{value!r} is no size; write it like 512MiB or 2GB")
    return int(float(found[1]) * unit)


def _duration(value: object) -> object:
    """A span as rule files write it: "30s", "5m"."""
    return timedelta(microseconds=parse_duration(value)) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_bytes)]
Span = Annotated[timedelta, BeforeValidator(_duration)]


class Kubernetes(Keys):
    """`kubernetes:` of a pool: how its Jobs are made.

    namespace: of the cluster; none: the worker's own where it is a pod itself, else `default`.  service_account: that
    its code may use; none: it gets no token of the cluster.  pull: when a node fetches the image; none: as the cluster
    does by default.  pull_secrets: for the image's registry.  secrets: names of Secrets whose keys become environment
    variables.  start: how long a pod may take to begin: until it has a node and its image.
    deadline: how long a Job may live at all.  ttl: how long one stays that has ended and that nobody has removed.
    """

    model_config = ConfigDict(strict=False)

    namespace: str = Field("", pattern=_DNS_LABEL)
    service_account: str = Field("", pattern=_DNS_NAME)
    pull: Pull | None = None
    pull_secrets: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    start: Span = Field(timedelta(minutes=10), ge=timedelta(seconds=1))
    deadline: Span = Field(timedelta(days=1), ge=timedelta(seconds=1))
    ttl: Span = Field(timedelta(minutes=5), ge=timedelta(0))


class Pool(Keys):
    """One entry of `pools:`.

    memory: bytes that the process (or container) of a run may occupy; none: no ceiling.  recycle: runs after which a
    warm process is replaced.  order: of the runs that wait.  drain: how long a worker that stops lets its runs go on.
    Of containers: image; environment; cpus; and of kind docker network, as `docker run` takes them.
    """

    model_config = ConfigDict(strict=False)

    name: str = Field(DEFAULT, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")
    kind: Kind = Kind.INLINE
    memory: Size | None = Field(None, ge=1 << 20)
    recycle: int = Field(1_000, ge=1)
    order: Order = Order.FAIR
    drain: Span = Field(timedelta(seconds=5), ge=timedelta(0))
    image: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    cpus: float | None = Field(None, gt=0)
    network: str = ""
    kubernetes: Kubernetes | None = None

    @property
    def grace(self) -> float:
        """Seconds that a process with a worker of this pool has to stop."""
        return STOPPING + self.drain.total_seconds()

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Pool:
        boxed = self.kind in (Kind.DOCKER, Kind.KUBERNETES)
        if boxed and not self.image:
            raise ValueError(f"a pool of kind {self.kind} needs an `image`, which holds penstock and your flows")
        if not boxed and (self.image or self.environment or self.cpus):
            raise ValueError("`image`, `environment` and `cpus` are for pools of kind docker and kubernetes")
        if self.kind is not Kind.DOCKER and self.network:
            raise ValueError("`network` is for pools of kind docker")
        if self.kind is not Kind.KUBERNETES and self.kubernetes is not None:
            raise ValueError("`kubernetes` is for pools of kind kubernetes")
        return self


def pool_named(pools: Sequence[Pool], name: str) -> Pool:
    """The pool of that name.

    Where none are written down, every name is an inline pool; `default` always is.  Raises UnknownPoolError.
    """
    for pool in pools:
        if pool.name == name:
            return pool
    if pools and name != DEFAULT:
        known = [pool.name for pool in pools]
        raise UnknownPoolError(
            f"there is no pool {name!r} under `pools:` of penstock.yaml ({did_you_mean(name, known)})"
        )
    return Pool(name=name)
