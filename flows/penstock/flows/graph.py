"""Which call a value came from: results that go from task to task make the run's graph."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from threading import Lock
from typing import Any

from penstock.flows.arguments import values_within
from penstock.flows.futures import TaskFuture

MOST = 10_000  # results that are watched at a time
_NO_IDENTITY = (type(None), bool)
_ONE_OBJECT = range(-5, 257)  # CPython has each of these numbers once, whoever returns it
_OURS = 3  # references to a value that nobody else holds any more: the entry, the local name, getrefcount's argument


class Origins:
    """Knows results by identity, not by value, and holds each only as long as the run's code does (nearly)."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, Any]] = {}
        self._order: deque[int] = deque()
        self._lock = Lock()  # threads of one run share it

    def add(self, value: object, key: str) -> None:
        """The call `key` has returned this very object."""
        if not _has_identity(value):
            return
        with self._lock:
            self._tidy()
            if id(value) not in self._calls:
                self._order.append(id(value))
            self._calls[id(value)] = key, value

    def among(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """Keys of the calls whose results (or futures) are among the arguments or directly inside of them."""
        found: dict[str, None] = {}
        for value in values_within(args, kwargs):
            if isinstance(value, TaskFuture):
                found[value.call_name] = None
            elif (known := self._calls.get(id(value))) is not None:
                found[known[0]] = None
        found.pop("", None)
        return tuple(found)

    def _tidy(self) -> None:
        """Look at two of the oldest: what only we hold can come as an argument no more."""
        for _ in range(min(2, len(self._order))):
            which = self._order.popleft()
            value = self._calls[which][1]
            if sys.getrefcount(value) <= _OURS or len(self._order) >= MOST:
                self._calls.pop(which, None)
            else:
                self._order.append(which)


def _has_identity(value: object) -> bool:
    """Not what CPython has once and hands to everybody."""
    if type(value) is int:
        return value not in _ONE_OBJECT
    return not isinstance(value, _NO_IDENTITY) and not (type(value) in (str, bytes, tuple) and not value)
