"""Who answers what a flow waits for where no worker looks after it: a test, or a person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from penstock.flows.errors import WaitError


@dataclass(frozen=True, slots=True)
class Question:
    """What a flow waits for.

    kind: "approval" or "event".  ask: the text, or the type of the event.  form: JSON Schema of what is to be filled
    in, None for a plain yes or no.  where: the pattern of the event.
    """

    kind: Literal["approval", "event"]
    ask: str
    form: Mapping[str, Any] | None = None
    where: Mapping[str, Any] | None = None


# True, or a mapping of the form's fields: approved. False: rejected. For an event: it, as a mapping or an Event.
# None: nothing comes until the time is up.
Answer: TypeAlias = Any
_answer: ContextVar[Callable[[Question], Answer] | None] = ContextVar("penstock_answer", default=None)


@contextmanager
def answering(answer: Callable[[Question], Answer]) -> Iterator[None]:
    """In tests, and in programs without a server: let `answer` decide what flows called within wait for.

    It is given a Question. For an approval it returns True, False, or a mapping of the form's fields (which approves);
    for an event a mapping or an Event; None: nothing comes in time.
    """
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


def ask_here(question: Question, at_terminal: Callable[[], Answer] | None = None) -> Answer:
    """The answer of whoever is there.  Raises WaitError where nobody is."""
    given = _answer.get()
    if given is not None:
        return given(question)
    if at_terminal is not None and sys.stdin is not None and sys.stdin.isatty():
        return at_terminal()
    told = f"asks {question.ask!r}" if question.kind == "approval" else f"waits for an event {question.ask!r}"
    how = " and `penstock approvals approve ID` answers it," if question.kind == "approval" else ""
    raise WaitError(
        f"the flow {told}, and nobody can answer here. On a worker the run waits{how} however long that takes;"
        " in a test, put the call under `with answering(lambda question: …)`"
        + ("; at a terminal you are asked" if question.kind == "approval" else "")
    )


def ask_at_terminal(ask: str, form: Mapping[str, Any] | None, check: Callable[[Mapping[str, Any]], object]) -> Answer:
    """Ask a person on this terminal, until what they say can be used.

    check: raises ValueError for values that do not fit the form.
    """
    if not _yes(ask):
        return False
    if form is None:
        return True
    while True:
        values = dict(_fields(form))
        try:
            check(values)
        except ValueError as error:
            sys.stderr.write(f"  {error}\n")
        else:
            return values


def _yes(ask: str) -> bool:
    while True:
        said = _read(f"{ask} [y/n] ").lower()
        if said in ("y", "yes"):
            return True
        if said in ("n", "no"):
            return False


def _fields(form: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is typed for each field; one that may be left out is, by an empty line."""
    required = form.get("required", ())
    for name, field in form.get("properties", {}).items():
        kind = field.get("type", "")
        default = f", {field['default']!r} if empty" if "default" in field else ""
        said = _read(f"  {name} ({kind or 'value'}{default}): ")
        if said or (name in required and kind == "string"):
            yield name, said


def _read(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise WaitError("the terminal was closed before the question was answered")
    return line.strip()
