"""Result stores, and results that are too large or too special for the journal."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.journals import Kept
from tests.support.result_stores import check_store

from penstock.flows import (
    FlowDefinitionError,
    FsspecStore,
    LocalStore,
    ResultMissingError,
    ResultStoreError,
    TaskResultError,
    flow,
    task,
)
from penstock.flows.results import MAX_RESULT
from penstock.flows.store import open_store


class Reversed:
    """A serialiser of one's own."""

    name = "reversed"

    def dump(self, value: object, name: str) -> bytes:
        return str(value)[::-1].encode()

    def load(self, body: bytes) -> Any:
        return body.decode()[::-1]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@task
def large() -> str:
    return "x" * MAX_RESULT


@task(serializer="pickle")
def point(x: int) -> Point:
    return Point(x)


@task(serializer="pickle")
def many() -> set[int]:
    return set(range(100_000))


@task(serializer=Reversed())
def backwards() -> str:
    return "abc"


@task
def looks_like_a_reference() -> dict[str, Any]:
    return {"$result": {"key": "results/none", "serializer": "json"}}


@flow
def keeps_all() -> list[Any]:
    return [len(large()), point(3).x, len(many()), backwards(), looks_like_a_reference()]


ALL = [MAX_RESULT, 3, 100_000, "abc", {"$result": {"key": "results/none", "serializer": "json"}}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    check_store(LocalStore(tmp_path / "store"))


def test_what_fsspec_reaches_is_a_store(tmp_path: Path) -> None:
    check_store(FsspecStore(f"local://{tmp_path}/store"))


def test_a_dead_holder_s_lease_runs_out(tmp_path: Path) -> None:
    store = FsspecStore(f"local://{tmp_path}/store")
    dead = store.lock("cache/x", lease=0)
    assert dead.try_acquire()
    living = store.lock("cache/x", lease=60)
    assert living.try_acquire()
    dead.release()
    assert not store.lock("cache/x", lease=60).try_acquire()


def test_a_file_is_there_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(folder)
    store.write("results/a", b"old")

    def dies(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", dies)
    with pytest.raises(OSError, match="no space"):
        store.write("results/a", b"new")
    assert store.read("results/a") == b"old"
    assert [path.name for path in (folder / "results").iterdir()] == ["a"]


def test_results_of_all_kinds_come_back_in_a_replay() -> None:
    first = Kept()
    assert first.run(keeps_all) == ALL
    second = first.again()
    assert (second.run(keeps_all), second.calls) == (ALL, [])


def test_the_journal_holds_what_is_small_and_refers_to_the_rest(folder: Path) -> None:
    kept = Kept()
    kept.run(keeps_all)
    assert all(len(call.result) < 1_000 for call in kept.calls)
    assert b'"inline"' in kept.named("point")[0].result
    assert len(list((folder / "results").iterdir())) == 2


async def test_async_code_reads_and_writes_beside_its_loop() -> None:
    @task
    async def heavy() -> str:
        return "x" * MAX_RESULT

    @flow
    async def keeps() -> int:
        return len(await heavy())

    first = Kept()
    with pytest.MonkeyPatch.context() as patch:
        threads: list[str] = []
        write = LocalStore.write

        def noted(self: LocalStore, key: str, body: bytes) -> None:
            threads.append(threading.current_thread().name)
            write(self, key, body)

        patch.setattr(LocalStore, "write", noted)
        context = first.context()
        from penstock.flows.context import entered

        with entered(context):
            assert await keeps.call_body({}) == MAX_RESULT
    assert threads
    assert threads != [threading.main_thread().name]


def test_a_result_that_is_lost_or_spoilt_is_told(folder: Path) -> None:
    @flow
    def keeps() -> int:
        return len(large())

    first = Kept()
    first.run(keeps)
    [path] = (folder / "results").iterdir()
    path.write_bytes(b"{}")
    with pytest.raises(ResultMissingError, match="is not what was written"):
        first.again().run(keeps)
    path.unlink()
    with pytest.raises(ResultMissingError, match=r"is not there.*PENSTOCK_RESULTS"):
        first.again().run(keeps)


def test_a_task_can_have_a_store_of_its_own(tmp_path: Path, folder: Path) -> None:
    stored = large.with_options(store=str(tmp_path / "mine"))

    @flow
    def keeps() -> int:
        return len(stored())

    first = Kept()
    assert first.run(keeps) == first.again().run(keeps) == MAX_RESULT
    assert not folder.exists()


def test_what_cannot_be_pickled_is_named() -> None:
    @task(serializer="pickle")
    def opens() -> Any:
        return threading.Lock()

    @flow
    def keeps() -> Any:
        return opens()

    with pytest.raises(TaskResultError, match="'opens' cannot be kept: it cannot be pickled"):
        Kept().run(keeps)


def test_stores_and_serialisers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ResultStoreError, match="nowhere://x cannot be used"):
        open_store("nowhere://user:secret@x")
    for wrong in ("xml", object()):
        with pytest.raises(FlowDefinitionError, match="serializer="):
            task(serializer=wrong)(lambda: None)  # type: ignore[call-overload]  # the point of the test


def test_the_default_is_a_folder_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_RESULTS")
    monkeypatch.chdir(tmp_path)
    assert open_store().url == str(tmp_path / ".penstock/results")
    assert open_store(f"file://{tmp_path}/x").url == str(tmp_path / "x")
