"""What every result store does: the contract that each one is tried by."""

from __future__ import annotations

from penstock.flows import ResultStore


def check_store(store: ResultStore) -> None:
    """Keys are written whole, replaced, read, forgotten; one holds a lock at a time."""
    assert store.read("results/none") is None
    store.write("results/a", b"one")
    store.write("results/a", b"two")
    store.write("cache/deep/b", b"")
    assert (store.read("results/a"), store.read("cache/deep/b")) == (b"two", b"")
    store.delete("results/a")
    store.delete("results/a")
    assert store.read("results/a") is None
    check_lock(store)


def check_lock(store: ResultStore) -> None:
    first, second = store.lock("cache/x", lease=60), store.lock("cache/x", lease=60)
    assert first.try_acquire()
    assert not second.try_acquire()
    second.release()  # who does not hold it gives nothing back
    assert not store.lock("cache/x", lease=60).try_acquire()
    assert store.lock("cache/y", lease=60).try_acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()
