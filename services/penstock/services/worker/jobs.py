"""Jobs of Kubernetes, pure: the manifest of one, and what the state of its pod says in words.

Objects of the cluster are mappings, as its API has them in JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.automations.pools import Kubernetes, Pool
from penstock.flows.states import State
from penstock.services.worker import pod

Object = Mapping[str, Any]

CONTAINER = "run"
COMMAND = ("python", "-P", "-m", "penstock.services.worker.pod")
CHILD = (*COMMAND, "child")  # executed beside the first process
_LONGEST = 63  # characters of a label's value
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")

# Reasons of a waiting container that time does not mend. An image that is not there is asked for twice by the node
# before it "backs off": a registry may be away for a moment.
_HOPELESS = frozenset(
    (
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    )
)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a Job is for, as its labels and annotations tell.  run, flow, epoch: "" and 0 of one that only looks."""

    namespace: str = "default"
    run: str = ""
    flow: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Coming:
    """How far a pod is.  name: of the pod, "" without one.  reason: why it is not there yet, or never will be."""

    name: str = ""
    ready: bool = False
    hopeless: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the run of a pod that has ended is to end, and why."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class _Labels:
    values: dict[str, str] = field(default_factory=dict)
    exact: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: str) -> None:
        """As a label, cut to what labels may be; what is lost by that stands in an annotation of the same name."""
        if not value:
            return
        fit = _UNFIT.sub("-", value)[:_LONGEST].strip("-_.")
        if fit:
            self.values[name] = fit
        if fit != value:
            self.exact[name] = value


def job_name(pool: str, token: str) -> str:
    """A name that pods of the Job can have, too: they add some characters to it."""
    return f"penstock-{re.sub(r'[^a-z0-9-]+', '-', pool)[:30].strip('-')}-{token}"


def job_manifest(pool: Pool, name: str, purpose: Purpose) -> dict[str, Any]:
    """The Job `name`, in whose pod one child is executed.

    One pod, once: what is tried again is tried by Penstock, from the run's journal. What it may use is what it asks
    for, so that it is not the first to be driven out.
    """
    told, wanted = labels(pool, purpose), pool.kubernetes or Kubernetes()
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": pool.image,
        "command": list(COMMAND),
        "env": _environment(pool, wanted, name),
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    if wanted.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in wanted.secrets]
    if wanted.pull is not None:
        container["imagePullPolicy"] = wanted.pull.value
    if resources := _resources(pool):
        container["resources"] = {"requests": resources, "limits": resources}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "automountServiceAccountToken": bool(wanted.service_account),
        "containers": [container],
    }
    if wanted.service_account:
        spec["serviceAccountName"] = wanted.service_account
    if wanted.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in wanted.pull_secrets]
    metadata = {"labels": told.values} | ({"annotations": told.exact} if told.exact else {})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **metadata},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": math.ceil(wanted.deadline.total_seconds()),
            "ttlSecondsAfterFinished": math.ceil(wanted.ttl.total_seconds()),
            "template": {"metadata": metadata, "spec": spec},
        },
    }


def labels(pool: Pool, purpose: Purpose) -> _Labels:
    """What says which pool and run a Job is of."""
    told = _Labels()
    told.add("app.kubernetes.io/managed-by", "penstock")
    told.add("penstock.pool", pool.name)
    told.add("penstock.namespace", purpose.namespace)
    told.add("penstock.run", purpose.run)
    told.add("penstock.flow", purpose.flow)
    told.add("penstock.epoch", str(purpose.epoch or ""))
    return told


def coming(found: Object | None) -> Coming:
    """How far the pod of a Job is.  found: None where the cluster has made none yet."""
    if found is None:
        return Coming(reason="the cluster has made no pod for it (a quota? `kubectl describe job` tells)")
    name = str(found["metadata"]["name"])
    status = found.get("status") or {}
    if status.get("phase") in ("Failed", "Succeeded"):
        return Coming(name, hopeless=True, reason=_told(status) or _ended_early(status))
    container = _container(status)
    state = container.get("state") or {}
    if state.get("running") is not None:
        return Coming(name, ready=True)
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _HOPELESS:
        return Coming(name, hopeless=True, reason=_told(waiting))
    if waiting.get("message"):
        return Coming(name, reason=_told(waiting))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Coming(name, reason=_told(condition))
    return Coming(name, reason=_told(waiting) or "it is being started")


def ending(job: Object | None, found: Object | None, pool: Pool) -> Ending | None:
    """Why a pod has ended that had not come to its end by itself; None where the cluster knows of nothing.

    job, found: the Job and its pod; None where there is none any more.
    """
    if job is None or (job.get("metadata") or {}).get("deletionTimestamp"):
        return Ending(State.CRASHED, "its Job was deleted from the cluster by somebody else")
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Failed", "FailureTarget") and condition.get("reason") == "DeadlineExceeded":
            allowed = (pool.kubernetes or Kubernetes()).deadline.total_seconds()
            return Ending(State.TIMED_OUT, f"its Job lived for longer than the pool's `deadline` of {allowed:g} s")
    if found is None:
        return Ending(State.CRASHED, "its pod was deleted from the cluster")
    status = found.get("status") or {}
    if (_terminated(status) or {}).get("reason") == "OOMKilled":
        most = "its node has" if pool.memory is None else f"the {pool.memory / (1 << 20):.0f} MiB that the pool allows"
        return Ending(State.FAILED, f"it used more memory than {most} (OOMKilled)")
    if status.get("reason"):  # Evicted, Preempting, NodeLost, …
        return Ending(State.CRASHED, f"its pod was ended by the cluster: {_told(status)}")
    if found["metadata"].get("deletionTimestamp"):
        return Ending(State.CRASHED, "its pod was deleted from the cluster")
    return None


def _environment(pool: Pool, wanted: Kubernetes, name: str) -> list[dict[str, str]]:
    patience = f"{wanted.start.total_seconds():g}"
    ours = {pod.NAME: name, pod.PATIENCE: patience}
    return [{"name": each, "value": value} for each, value in sorted((pool.environment | ours).items())]


def _resources(pool: Pool) -> dict[str, str]:
    found = {} if pool.memory is None else {"memory": str(pool.memory)}
    if pool.cpus is not None:
        found["cpu"] = f"{math.ceil(pool.cpus * 1_000)}m"
    return found


def _container(status: Object) -> Object:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            known: Object = container
            return known
    return {}


def _terminated(status: Object) -> Object | None:
    container = _container(status)
    found: Object | None = (container.get("state") or {}).get("terminated")
    return found


def _ended_early(status: Object) -> str:
    code = (_terminated(status) or {}).get("exitCode")
    return "its container ended before a run began" + (f", with code {code}" if code is not None else "")


def _told(found: Object) -> str:
    """A reason with its message."""
    return ": ".join(str(found[key]).strip() for key in ("reason", "message") if found.get(key))
