"""Results in S3, against a local server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
from tests.support.journals import Kept
from tests.support.result_stores import check_store

from penstock.flows import INPUTS, FsspecStore, flow, task
from penstock.flows.results import MAX_RESULT

KEYS = {"key": "test", "secret": "test"}


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a fresh bucket, with the settings by which every process finds it."""
    s3fs: Any = import_module("s3fs")  # it has no types
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("NO_PROXY", "*")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"results-{uuid4().hex[:8]}"
    s3fs.S3FileSystem(endpoint_url=s3_server, **KEYS).mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_a_store(bucket: str, s3_server: str) -> None:
    check_store(FsspecStore(f"{bucket}/deep/prefix", endpoint_url=s3_server, **KEYS))


def test_one_of_many_gets_the_lock(bucket: str) -> None:
    store = FsspecStore(bucket)
    start, got = threading.Barrier(8), []

    def asks() -> None:
        lock = store.lock("cache/x", lease=60)
        start.wait()
        if lock.try_acquire():
            got.append(lock)

    threads = [threading.Thread(target=asks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_large_results_of_a_run_and_cached_ones_lie_in_the_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RESULTS", f"{bucket}/penstock")
    ran: list[str] = []

    @task
    def large() -> str:
        ran.append("large")
        return "x" * MAX_RESULT

    @task(cache=INPUTS, serializer="pickle")
    async def cached(a: int) -> Any:
        ran.append("cached")
        return {(a, a)}

    @flow
    def keeps() -> list[Any]:
        return [len(large()), *cached.map([1, 1, 1]).result()]

    first = Kept()
    found = first.run(keeps)
    assert found == [MAX_RESULT, {(1, 1)}, {(1, 1)}, {(1, 1)}]
    assert first.again().run(keeps) == found
    assert ran == ["large", "cached"]
