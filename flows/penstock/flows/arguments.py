"""What stands in the arguments of a call: futures to wait for, results of other calls, values to map over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.flows.errors import CallError
from penstock.flows.futures import FutureList, TaskFuture, unmapped

LOOKED_THROUGH = 1_000  # elements; a larger list, tuple, set or dict is data, unless it begins with a future


def values_within(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments, and the elements of those that are lists, tuples, sets and dicts (see LOOKED_THROUGH)."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        yield value
        yield from _elements(value)


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


_CONTAINERS = (list, tuple, set, frozenset, dict, FutureList)


def _elements(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind not in _CONTAINERS:
        return ()
    elements = value.values() if kind is dict else value
    if len(value) > LOOKED_THROUGH and not isinstance(next(iter(elements)), TaskFuture):
        return ()
    return elements  # type: ignore[no-any-return]  # the elements of any container


def _is_spread(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | unmapped | TaskFuture)


def _constant(value: Any) -> Any:
    return value.value if isinstance(value, unmapped) else value


def _filled(value: Any) -> Any:
    if isinstance(value, TaskFuture):
        return value.result(0)
    if not any(isinstance(each, TaskFuture) for each in _elements(value)):
        return value
    if type(value) is dict:
        return {name: _result(each) for name, each in value.items()}
    kind = list if isinstance(value, FutureList) else type(value)
    return kind(_result(each) for each in value)


def _result(value: Any) -> Any:
    return value.result(0) if isinstance(value, TaskFuture) else value
