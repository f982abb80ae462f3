"""What stands in the arguments of a call: futures to wait for, results of other calls, values to map over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.flows.errors import CallError
from penstock.flows.futures import TaskFuture, unmapped

LOOKED_THROUGH = 1_000  # elements of a list, tuple, set or dict among the arguments; a larger one is data


def values_within(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments, and the elements of those that are (not too large) lists, tuples, sets and dicts."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        yield value
        kind = type(value)
        if kind in _CONTAINERS and len(value) <= LOOKED_THROUGH:
            yield from value.values() if kind is dict else value


def futures_within(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[TaskFuture[Any]]:
    """The futures among the arguments and directly inside of them."""
    return [value for value in values_within(args, kwargs) if isinstance(value, TaskFuture)]


def with_results(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the result of each (ended) future in its place.  Raises what a future's call raised."""
    return tuple(_filled(value) for value in args), {name: _filled(value) for name, value in kwargs.items()}


def spread(
    task: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of each call of a `.map`: element by element of all iterables.

    Texts, bytes, mappings, and what is `unmapped`, go to every call.  Raises CallError for iterables of different
    lengths, and where there is none.
    """
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    lists = {name: list(value) for name, value in given.items() if _is_spread(value)}
    lengths = {name: len(values) for name, values in lists.items()}
    if not lengths:
        raise CallError(f"{task!r}.map needs a list to go through; for one call there is .submit")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise CallError(f"{task!r}.map was given lists of different lengths ({told}); mark constants with unmapped(…)")
    fixed = {name: _constant(value) for name, value in given.items() if name not in lists}
    for place in range(next(iter(lengths.values()))):
        call = {name: lists[name][place] if name in lists else fixed[name] for name in given}
        yield tuple(call[at] for at in range(len(args))), {name: call[name] for name in kwargs}


_CONTAINERS = (list, tuple, set, frozenset, dict)


def _is_spread(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | unmapped | TaskFuture)


def _constant(value: Any) -> Any:
    return value.value if isinstance(value, unmapped) else value


def _filled(value: Any) -> Any:
    if isinstance(value, TaskFuture):
        return value.result(0)
    kind = type(value)
    if kind not in _CONTAINERS or len(value) > LOOKED_THROUGH:
        return value
    if kind is dict:
        inside = value.values()
        return {k: _filled_flat(v) for k, v in value.items()} if _holds_future(inside) else value
    return kind(_filled_flat(each) for each in value) if _holds_future(value) else value


def _holds_future(values: Iterable[Any]) -> bool:
    return any(isinstance(each, TaskFuture) for each in values)


def _filled_flat(value: Any) -> Any:
    return value.result(0) if isinstance(value, TaskFuture) else value
