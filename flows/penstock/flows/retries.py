"""How often a call is tried, how long it waits between, how long it may take: values and pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from penstock.flows.errors import FlowDefinitionError

Seconds: TypeAlias = "float | int | timedelta"
LONGEST = 366 * 86_400.0  # seconds; a longer wait or timeout is a slip of units


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow: first, first*factor, first*factor**2 …, never above `most`.  All in seconds.

    jitter: the share that chance may add to a wait, 0.1 for up to 10 %; calls that failed together part by it.
    """

    first: float
    factor: float = 2.0
    most: float = 3_600.0
    jitter: float = 0.0

    def wait(self, retry: int) -> float:
        """Seconds before the `retry`-th retry (1: the first), without jitter."""
        try:
            return min(self.first * self.factor ** (retry - 1), self.most)
        except OverflowError:  # beyond what a float holds, hence beyond `most`
            return self.most


RetryDelay: TypeAlias = "Seconds | Sequence[Seconds] | Backoff"


def exponential(first: Seconds, *, factor: float = 2.0, most: Seconds = 3_600.0, jitter: float = 0.1) -> Backoff:
    """Exponential back-off for `retry_delay=`.  Raises FlowDefinitionError for a negative value or factor below 1."""
    if factor < 1 or jitter < 0:
        raise FlowDefinitionError(f"factor={factor!r} must be at least 1 and jitter={jitter!r} at least 0")
    return Backoff(seconds(first, "first"), factor, seconds(most, "most"), jitter)


RetryIf: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"


@dataclass(frozen=True, slots=True)
class Policy:
    """retries: how many more tries after the first.  timeout: seconds that one try may take (None: no limit).

    condition: whether an exception is a reason to try again (None: each is).
    """

    retries: int = 0
    delay: tuple[float, ...] | Backoff = (0.0,)
    timeout: float | None = None
    condition: Callable[[Exception], bool] | None = None

    def allows(self, error: BaseException) -> bool:
        """Whether a call that ended with `error` may be tried again, as far as the error goes.

        Where the condition itself raises, it may not; the error gets a note of that.
        """
        if not isinstance(error, Exception):
            return False
        try:
            return self.condition is None or bool(self.condition(error))
        except Exception as problem:  # the user's function may raise anything, and must not hide the error
            error.add_note(f"retry_if failed: {type(problem).__name__}: {problem}")
            return False

    @property
    def jitter(self) -> float:
        """The share that chance may add to each wait."""
        return self.delay.jitter if isinstance(self.delay, Backoff) else 0.0

    def wait(self, retry: int, draw: float = 0.0) -> float:
        """Seconds before the `retry`-th retry (1: the first); draw: a random number in [0, 1) for the jitter.

        A list of delays that is shorter than `retries` goes on with its last one.
        """
        if isinstance(self.delay, Backoff):
            return self.delay.wait(retry) * (1 + self.jitter * draw)
        return self.delay[min(retry, len(self.delay)) - 1]

    def waits(self) -> list[float]:
        """The wait before each retry, without jitter."""
        return [self.wait(retry) for retry in range(1, self.retries + 1)]


def policy(
    retries: int = 0, retry_delay: RetryDelay = 0, timeout: Seconds | None = None, retry_if: RetryIf | None = None
) -> Policy:
    """What the decorators were given, checked.  Raises FlowDefinitionError."""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 10_000:
        raise FlowDefinitionError(f"retries={retries!r}: give a whole number from 0 to 10000")
    if timeout is not None and seconds(timeout, "timeout") == 0:
        raise FlowDefinitionError("timeout=0 leaves no time at all; leave it out for no limit")
    limit = None if timeout is None else seconds(timeout, "timeout")
    return Policy(retries, _delay(retry_delay), limit, _condition(retry_if))


def seconds(value: object, what: str) -> float:
    """A number of seconds or a timedelta as seconds.  Raises FlowDefinitionError."""
    found = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= LONGEST:
        raise FlowDefinitionError(f"{what}={value!r}: give seconds (0 to {LONGEST:g}) or a timedelta")
    return float(found)


def _condition(value: RetryIf | None) -> Callable[[Exception], bool] | None:
    if value is None:
        return None
    kinds = value if isinstance(value, tuple) else (value,)
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return lambda error: isinstance(error, kinds)  # type: ignore[arg-type]  # they are all classes, seen above
    if callable(value) and not isinstance(value, type):
        return value
    raise FlowDefinitionError(f"retry_if={value!r}: give exception classes, or a function of the exception")


def _delay(value: RetryDelay) -> tuple[float, ...] | Backoff:
    if isinstance(value, Backoff):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if not value:
            raise FlowDefinitionError("retry_delay=[]: give at least one delay, or leave it out")
        return tuple(seconds(each, "retry_delay") for each in value)
    return (seconds(value, "retry_delay"),)
