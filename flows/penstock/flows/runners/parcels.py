"""How a body travels to another process: its function with its arguments, and back its result with its log lines.

A function travels by value: the code of the task goes, and what it names in its module (as far as that can be pickled);
so the other side needs no copy of a script that runs here. Modules it imports have to be installed there.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle

from penstock.flows.context import LOGGER, current_context, entered, get_logger
from penstock.flows.errors import RunnerError

if TYPE_CHECKING:
    from penstock.flows.step import Step


_GO_ALONG = ("name", "retries", "retry_delay", "retry_if", "timeout")  # what a plain call of a task still heeds


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a body.  lines: (level, text) that it logged."""

    result: Any = None
    error: BaseException | None = None
    lines: list[tuple[int, str]] = field(default_factory=list)


def make_parcel(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """A body and its context as bytes.  Raises RunnerError for what cannot travel."""
    context = current_context()
    traveller = None if context is None else context.abroad()
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=5).dump((step.collecting, args, kwargs, traveller))
    except Exception as error:  # pickling runs code of the values, which may raise anything
        raise RunnerError(
            f"task {step.name!r} cannot go to another process: {error}. Pass values instead of connections, files and"
            " locks, or let it run in a thread (ThreadRunner)"
        ) from error
    return buffer.getvalue()


def open_parcel(parcel: bytes) -> bytes:
    """In the other process: run the body; the answer as bytes."""
    function, args, kwargs, context = cloudpickle.loads(parcel)
    with _caught_lines() as lines:
        try:
            if context is None:
                answer = Answer(function(*args, **kwargs), lines=lines)
            else:
                with entered(context):
                    answer = Answer(function(*args, **kwargs), lines=lines)
        except Exception as error:  # it is raised again where the task was called
            answer = Answer(error=error, lines=lines)
    return _dumped(answer)


def read_answer(body: bytes) -> Any:
    """In the flow's process: log what was logged, return the result or raise the error."""
    answer: Answer = cloudpickle.loads(body)
    for level, text in answer.lines:
        get_logger().log(level, "%s", text)
    if answer.error is not None:
        raise answer.error
    return answer.result


def _dumped(answer: Answer) -> bytes:
    try:
        body: bytes = cloudpickle.dumps(answer, protocol=5)
        cloudpickle.loads(body)  # exceptions with arguments of their own pickle, and do not come back
    except Exception as error:  # what cannot come back is told in words
        what = "its result" if answer.error is None else f"its error ({type(answer.error).__name__}: {answer.error})"
        refusal = RunnerError(f"{what} cannot come back from another process: {error}. Return plain values")
        return cloudpickle.dumps(Answer(error=refusal, lines=answer.lines), protocol=5)  # type: ignore[no-any-return]  # cloudpickle has no types
    return body


@contextmanager
def _caught_lines() -> Iterator[list[tuple[int, str]]]:
    lines: list[tuple[int, str]] = []
    handler = _Catcher(lines)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    propagated, LOGGER.propagate = LOGGER.propagate, False
    try:
        yield lines
    finally:
        LOGGER.propagate = propagated
        LOGGER.removeHandler(handler)


class _Catcher(logging.Handler):
    def __init__(self, lines: list[tuple[int, str]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, self.format(record)))


class _Pickler(cloudpickle.Pickler):
    """Flows and tasks travel by value: the module that holds them may be a script, or loaded by its path."""

    def reducer_override(self, obj: Any) -> Any:
        from penstock.flows.step import Step, rebuild

        if isinstance(obj, Step):
            return rebuild, (type(obj), obj.fn, {name: obj.options[name] for name in _GO_ALONG if name in obj.options})
        return super().reducer_override(obj)  # type: ignore[no-untyped-call]  # cloudpickle has no types
