"""The manifest of a Job, and what the state of one says in words."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.kubernetes import unknown_to_the_schema

from penstock.automations.pools import Kind, Kubernetes, Pool, Pull
from penstock.flows.states import State
from penstock.services.worker.jobs import Coming, Ending, Purpose, coming, ending, job_manifest, job_name, labels

PLAIN = Pool(name="podded", kind=Kind.KUBERNETES, image="flows:1")
FULL = PLAIN.model_copy(
    update={
        "memory": 512 << 20,
        "cpus": 1.5,
        "environment": {"REGION": "north"},
        "kubernetes": Kubernetes(
            namespace="flows",
            service_account="runner",
            pull=Pull.ALWAYS,
            pull_secrets=("registry",),
            secrets=("flows-env",),
            start=timedelta(minutes=2),
            deadline=timedelta(hours=6),
            ttl=timedelta(seconds=90),
        ),
    }
)
RUN = Purpose("default", "0192f0c4-7b1e-7cc3-9d2a-1d0f6a3b5c7e", "reroute", 3)
JOB: dict[str, Any] = {"metadata": {"name": "j"}}


@pytest.mark.parametrize("pool", [PLAIN, FULL])
@pytest.mark.parametrize("purpose", [Purpose(), RUN])
def test_the_schema_of_the_cluster_knows_all_that_a_manifest_says(pool: Pool, purpose: Purpose) -> None:
    assert unknown_to_the_schema(job_manifest(pool, "penstock-podded-1", purpose)) is None


def test_the_schema_would_tell_of_a_mistake() -> None:
    manifest = job_manifest(PLAIN, "penstock-podded-1", RUN)
    manifest["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    assert "restartpolicy" in (unknown_to_the_schema(manifest) or "")
    del manifest["spec"]["template"]
    assert "template" in (unknown_to_the_schema(manifest) or "")


def test_a_job_gets_what_its_pool_says() -> None:
    manifest = job_manifest(FULL, "penstock-podded-1", RUN)
    spec = manifest["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 21_600, 90)
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["serviceAccountName"]) == ("Never", "runner")
    assert (pod["automountServiceAccountToken"], pod["imagePullSecrets"]) == (True, [{"name": "registry"}])
    (container,) = pod["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("flows:1", "Always")
    assert container["resources"]["limits"] == {"memory": "536870912", "cpu": "1500m"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["envFrom"] == [{"secretRef": {"name": "flows-env"}}]
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "PENSTOCK_JOB": "penstock-podded-1",
        "PENSTOCK_JOB_PATIENCE": "120",
        "REGION": "north",
    }
    assert manifest["metadata"] == spec["template"]["metadata"] | {"name": "penstock-podded-1"}
    assert manifest["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "penstock",
        "penstock.epoch": "3",
        "penstock.flow": "reroute",
        "penstock.namespace": "default",
        "penstock.pool": "podded",
        "penstock.run": RUN.run,
    }


def test_a_job_whose_pool_says_little_is_bounded_and_gets_no_token_of_the_cluster() -> None:
    spec = job_manifest(PLAIN, "penstock-podded-1", RUN)["spec"]
    pod = spec["template"]["spec"]
    assert spec["activeDeadlineSeconds"] == 86_400
    assert pod["automountServiceAccountToken"] is False
    assert not {"resources", "imagePullPolicy", "envFrom"} & set(pod["containers"][0])


@settings(max_examples=50)
@given(st.text(), st.text())
def test_whatever_a_flow_is_called_its_label_is_one_and_nothing_is_lost(namespace: str, flow: str) -> None:
    told = labels(PLAIN, Purpose(namespace, flow=flow))
    for value in told.values.values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)
    assert told.exact.get("penstock.flow", told.values.get("penstock.flow", "")) == flow


@given(st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,90}[a-z0-9])?", fullmatch=True))
def test_a_job_has_a_name_that_its_pod_can_have_too(pool: str) -> None:
    name = job_name(pool, "0123456789ab")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?", name)


def pod(state: dict[str, Any] | None = None, phase: str = "Pending", **status: Any) -> dict[str, Any]:
    found = [] if state is None else [{"name": "run", "state": state}]
    return {"metadata": {"name": "j-x"}, "status": {"phase": phase, "containerStatuses": found, **status}}


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes have gpus"}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (pod({"running": {"startedAt": "2026-11-22T00:00:00Z"}}, "Running"), Coming("j-x", ready=True)),
        (pod({"waiting": {"reason": "ContainerCreating"}}), Coming("j-x", reason="ContainerCreating")),
        (pod(conditions=[UNSCHEDULED]), Coming("j-x", reason="Unschedulable: 0/3 nodes have gpus")),
        (pod(), Coming("j-x", reason="it is being started")),
        (
            pod({"waiting": {"reason": "ErrImagePull", "message": "the registry is away"}}),
            Coming("j-x", reason="ErrImagePull: the registry is away"),
        ),
        (
            pod({"waiting": {"reason": "ImagePullBackOff", "message": "no flows:1"}}),
            Coming("j-x", hopeless=True, reason="ImagePullBackOff: no flows:1"),
        ),
        (
            pod({"waiting": {"reason": "CreateContainerConfigError", "message": "no secret flows-env"}}),
            Coming("j-x", hopeless=True, reason="CreateContainerConfigError: no secret flows-env"),
        ),
        (
            pod({"terminated": {"exitCode": 1, "reason": "Error"}}, "Failed"),
            Coming("j-x", hopeless=True, reason="its container ended before a run began, with code 1"),
        ),
    ],
)
def test_how_far_a_pod_is_is_told_in_the_words_of_the_cluster(found: dict[str, Any], told: Coming) -> None:
    assert coming(found) == told


def test_a_pod_that_the_cluster_does_not_make_is_waited_for() -> None:
    assert (coming(None).hopeless, "quota" in coming(None).reason) == (False, True)


LATE = {"status": {"conditions": [{"type": "Failed", "reason": "DeadlineExceeded"}]}}
OOM = pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "Failed")
EVICTED = pod(None, "Failed", reason="Evicted", message="the node was low on memory")


@pytest.mark.parametrize(
    ("job", "found", "told"),
    [
        (None, None, Ending(State.CRASHED, "its Job was deleted from the cluster by somebody else")),
        (JOB, None, Ending(State.CRASHED, "its pod was deleted from the cluster")),
        (
            JOB | LATE,
            None,
            Ending(State.TIMED_OUT, "its Job lived for longer than the pool's `deadline` of 21600 s"),
        ),
        (JOB, OOM, Ending(State.FAILED, "it used more memory than the 512 MiB that the pool allows (OOMKilled)")),
        (
            JOB,
            EVICTED,
            Ending(State.CRASHED, "its pod was ended by the cluster: Evicted: the node was low on memory"),
        ),
        (JOB, pod({"running": {}}, "Running"), None),
        (JOB, pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, "Succeeded"), None),
    ],
)
def test_why_a_pod_has_ended(job: dict[str, Any] | None, found: dict[str, Any] | None, told: Ending | None) -> None:
    assert ending(job, found, FULL) == told
