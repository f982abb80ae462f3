"""Results that are kept across runs: which calls are the same, how long a result holds, and who computes it.

@task(cache=INPUTS + SOURCE, cache_for=timedelta(hours=1))
def rate(currency: str) -> float: ...
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.events.ids import derived_id
from penstock.flows.errors import CallError, FlowDefinitionError
from penstock.flows.operations import Blocking, Life, Pause
from penstock.flows.results import encode_arguments
from penstock.flows.serializers import pack, unpack
from penstock.flows.sources import source_digest
from penstock.flows.store import LocalStore, ResultStore, StoreLock

if TYPE_CHECKING:
    from penstock.flows.step import Step

LEASE = 300.0  # seconds that a lock outlives a dead holder, in stores that have no better way
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.5  # seconds between looks at a lock that another one holds
_MISS: Any = object()


@dataclass(frozen=True, slots=True)
class Cache:
    """What makes two calls of a task the same. Add them up: `INPUTS + SOURCE`.

    inputs: equal arguments.  source: equal code of the task.  key: a text made from the arguments by name.
    """

    inputs: bool = False
    source: bool = False
    key: Callable[[Mapping[str, Any]], str] | None = None
    left_out: frozenset[str] = frozenset()

    def __add__(self, other: Cache) -> Cache:
        if self.key is not None and other.key is not None:
            raise FlowDefinitionError("two cache key functions cannot be added up; write one that joins their texts")
        return Cache(
            self.inputs or other.inputs, self.source or other.source, self.key or other.key,
            self.left_out | other.left_out,
        )  # fmt: skip

    def without(self, *names: str) -> Cache:
        """The same, with arguments left out that make no difference (a session, a logger)."""
        return replace(self, left_out=self.left_out | set(names))

    def find_key(self, name: str, fn: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
        """Under which key the result of a call is kept.  Raises CallError for an argument that cannot be compared."""
        inputs = {each: value for each, value in arguments.items() if each not in self.left_out}
        parts = [
            _digest(name, inputs) if self.inputs else "",
            source_digest(fn) if self.source else "",
            _text(name, self.key(arguments)) if self.key is not None else "",
        ]
        return f"cache/{derived_id('cache', name, *parts)}"


INPUTS = Cache(inputs=True)
SOURCE = Cache(source=True)


def by_key(function: Callable[[Mapping[str, Any]], str]) -> Cache:
    """Calls are the same whose arguments (by name, defaults included) the function makes the same text of."""
    return Cache(key=function)


class _Entry(msgspec.Struct, frozen=True):
    """A kept result.  until: the instant (µs) at which it has run out.  result: as in the journal."""

    result: msgspec.Raw
    until: int | None = None
    v: int = 1


def cached(
    step: Step[..., Any],
    cache: Cache,
    arguments: Mapping[str, Any],
    now: Callable[[], int],
    compute: Callable[[], Life[Any]],
) -> Life[Any]:
    """The kept result of an equal call; else compute and keep it, while others that want the same wait."""
    store, key = step.result_store(), cache.find_key(step.name, step.fn, arguments)
    found = yield from _look(step, store, key, now)
    if found is not _MISS:
        return found
    lock, wait = store.lock(key, LEASE), _FIRST_LOOK
    while not (yield from _try(store, lock)):
        yield Pause(wait)
        wait = min(wait * 2, _LONGEST_LOOK)
        found = yield from _look(step, store, key, now)
        if found is not _MISS:
            return found
    try:
        found = yield from _look(step, store, key, now)  # another one has computed it just before
        value = found if found is not _MISS else (yield from _compute(step, store, key, now, compute))
    except GeneratorExit:
        lock.release()
        raise
    except BaseException:
        yield Blocking(lock.release)
        raise
    yield Blocking(lock.release)
    return value


def _compute(
    step: Step[..., Any], store: ResultStore, key: str, now: Callable[[], int], compute: Callable[[], Life[Any]]
) -> Life[Any]:
    value = yield from compute()
    packed = pack(value, step.name, step.serializer, lambda: store)
    until = None if step.cache_for is None else now() + round(step.cache_for * 1_000_000)
    entry = msgspec.json.encode(_Entry(msgspec.Raw(packed.body), until))

    def write() -> None:
        if packed.store is not None:
            packed.store()
        store.write(key, entry)

    yield Blocking(write)
    return value


def _look(step: Step[..., Any], store: ResultStore, key: str, now: Callable[[], int]) -> Life[Any]:
    def read() -> Any:
        body = store.read(key)
        if body is None:
            return _MISS
        entry = msgspec.json.decode(body, type=_Entry)
        if entry.until is not None and entry.until <= now():
            return _MISS
        return unpack(bytes(entry.result), step.result_type, lambda: store)

    return (yield Blocking(read))


def _try(store: ResultStore, lock: StoreLock) -> Life[bool]:
    if isinstance(store, LocalStore):  # at once, so that a cancellation cannot come between the lock and its holder
        return lock.try_acquire()
    return bool((yield Blocking(lock.try_acquire)))


def _digest(name: str, arguments: Mapping[str, Any]) -> str:
    return derived_id(*(part for each in sorted(arguments) for part in (each, _exactly(name, each, arguments[each]))))


def _exactly(name: str, argument: str, value: object) -> str:
    """Text that is equal for equal values only."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        return f"{kind} {encode_arguments(value).hex()}"
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # it has no JSON form
    try:
        return f"{kind} {pickle.dumps(value, protocol=5).hex()}"
    except Exception as error:  # pickling runs code of the value
        raise CallError(
            f"argument {argument!r} of task {name!r} cannot be compared ({error}): leave it out with"
            f' cache=INPUTS.without("{argument}"), or make a key with by_key(…)'
        ) from error


def _text(name: str, key: object) -> str:
    if not isinstance(key, str):
        raise CallError(f"the cache key function of task {name!r} returned {key!r}; it has to return a text")
    return key
