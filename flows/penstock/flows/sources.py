"""Digests of code, and what is told when a run is resumed with other code than it began with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from inspect import unwrap
from types import CodeType
from typing import Any
from weakref import WeakSet

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_registered: dict[str, WeakSet[Callable[..., Any]]] = {}


def source_digest(fn: Callable[..., Any]) -> str:
    """What a function does, as `<Python>:<16 hexadecimal digits>`.

    It changes with the code of the function and the functions inside it; not with comments, layout or docstrings, nor
    with functions elsewhere that it calls.
    """
    digest = blake2b(digest_size=8)
    for part in _parts(unwrap(fn).__code__):
        digest.update(len(part).to_bytes(4, "big") + part)
    return f"{_PYTHON}:{digest.hexdigest()}"


def differs(old: str, new: str) -> bool:
    """Whether two digests tell of different code; unknown ones, and ones of another Python, tell nothing."""
    return bool(old and new) and old.split(":")[0] == new.split(":")[0] and old != new


def register(name: str, fn: Callable[..., Any]) -> None:
    """This process has a flow or task of that name."""
    _registered.setdefault(name, WeakSet()).add(fn)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """What a journal knows of a recorded call besides its result.

    source: digest of its code, "" where unknown.  parent: key of the call that made it, None where unknown.
    """

    name: str
    source: str = ""
    parent: str | None = None


@dataclass(slots=True)
class Past:
    """The code that a run has been recorded with.

    flow: digest of the flow's function, "" where unknown.  calls: key → what was recorded.
    """

    flow: str = ""
    calls: Mapping[str, RecordedCall] = field(default_factory=dict)

    def changes(self, flow: str, source: str) -> list[str]:
        """One sentence for each difference between what was recorded and the code of this process."""
        found = [f"the code of flow {flow!r} itself is another"] if differs(self.flow, source) else []
        for name, old in dict.fromkeys((call.name, call.source) for call in self.calls.values() if call.source):
            present = [source_digest(fn) for fn in _registered.get(name, ())]
            if not present:
                found.append(f"there is no task {name!r} any more")
            elif all(differs(old, each) for each in present):
                found.append(f"the code of {name!r} is another")
        return found

    def unasked(self, keys: set[str]) -> list[str]:
        """One sentence for each name of recorded calls that the flow made formerly, and makes no more.

        keys: of the calls that have been made. Calls within recorded calls are not made again, and do not count.
        """
        missing: dict[str, int] = {}
        for key, call in self.calls.items():
            if call.parent == "" and key not in keys and not call.name.startswith("("):
                missing[call.name] = missing.get(call.name, 0) + 1
        return [
            f"{count} recorded call{'s' * (count > 1)} of {name!r} {'are' if count > 1 else 'is'} not made any more"
            " (or not with the same arguments)"
            for name, count in missing.items()
        ]


def _parts(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount)).encode()
    for constant in code.co_consts[_documentation(code) :]:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):  # written in another order by every process
            yield repr(sorted(map(repr, constant))).encode()
        else:
            yield repr(constant).encode("utf-8", "surrogatepass")


def _documentation(code: CodeType) -> int:
    """How many constants, at the front, are the docstring: up to Python 3.13 a function has None there without one."""
    if sys.version_info >= (3, 14):
        return int(bool(code.co_flags & 0x4000000))
    return int(not code.co_name.startswith("<"))
