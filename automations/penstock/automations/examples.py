"""`tests:` of rules: what is given, what is expected, and how the two differ; the clock is virtual.

Offsets, under `given` and under `expect`, count from one origin: `0s` is the first event where it is given so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.automations.documents import Document
from penstock.automations.durations import format_duration, parse_duration
from penstock.automations.models import Expectation, Given, TestCase
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.rules import Automation
from penstock.automations.scopes import unknown_attribute
from penstock.events.errors import InvalidEventError
from penstock.events.event import from_mapping
from penstock.events.instants import Instant, format_instant
from penstock.triggers.decisions import Decision
from penstock.triggers.keys import canonical
from penstock.triggers.simulation import instant_of, simulate

ORIGIN: Instant = instant_of("2026-01-05T00:00:00Z")  # a Monday, for schedules
_KINDS = {"fires": "fired", "resolves": "resolved", "suppresses": "suppressed"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a comparison: a decision that was both expected and got, or only one of them."""

    mark: str  # " " both, "-" only expected, "+" only got
    at: Instant | None  # None: the expectation does not say
    kind: str
    automation: str
    details: Mapping[str, Any]  # key, events, reason: what is known of them

    def __str__(self) -> str:
        at = "any time" if self.at is None else _offset(self.at)
        details = "".join(f" {name} {canonical(value)}" for name, value in self.details.items())
        return f"{self.mark} {at:>8}  {self.kind} {self.automation}{details}"

    def to_mapping(self) -> dict[str, Any]:
        """As JSON."""
        at = None if self.at is None else format_instant(self.at)
        return {"at": at, "automation": self.automation, "kind": self.kind, **self.details}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one test."""

    automation: Automation
    name: str
    lines: tuple[Line, ...]

    @property
    def passed(self) -> bool:
        """Whether everything expected was got, and nothing else."""
        return all(line.mark == " " for line in self.lines)

    def to_mapping(self) -> dict[str, Any]:
        """As JSON."""
        marked = {"missing": "-", "unexpected": "+"}
        differences = {
            name: [line.to_mapping() for line in self.lines if line.mark == mark] for name, mark in marked.items()
        }
        rule = self.automation
        place = {"file": rule.file, "line": rule.line}
        return {"automation": rule.name, "test": self.name, "passed": self.passed, **place, **differences}


def run_examples(rules: Sequence[Automation]) -> Iterator[Outcome]:
    """Every test of every rule, in their order; rules without errors only."""
    by_name = {rule.key: rule for rule in rules}
    for rule in rules:
        for test in rule.tests:
            yield run_example(rule, test, by_name)


def run_example(rule: Automation, test: TestCase, by_name: Mapping[tuple[str, str], Automation]) -> Outcome:
    """One test: of its rule, and of those that it names besides."""
    named = dict.fromkeys([rule.name, *(_named(each) for each in test.expect)])
    tried = [by_name[rule.namespace, name] for name in named if (rule.namespace, name) in by_name]
    events = [given_event(given, number) for number, given in enumerate(test.given, 1)]
    found = simulate([each.rule for each in tried], events, _until(test, events))
    suppressed = any(each.suppresses for each in test.expect)
    got = [each for each in found if suppressed or each.kind != "suppressed"]
    return Outcome(rule, test.name, tuple(compared(test.expect, got)))


def given_event(given: Given, number: int) -> dict[str, Any]:
    """The CloudEvent of a line under `given`; number: from 1, for the id e1, e2, … where it has none."""
    found: dict[str, Any] = {"specversion": "1.0", "id": f"e{number}", "source": "/test", "type": given.type}
    found |= {"time": format_instant(moment(given.at))}
    if given.recorded is not None:
        found["recordedtime"] = format_instant(moment(given.recorded))
    return found | (given.model_extra or {})


def moment(text: str) -> Instant:
    """An offset (`90s`) or an RFC 3339 time.  Raises ValueError."""
    if text[4:5] == "-":
        try:
            return instant_of(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time; write e.g. `2026-01-05T09:00:00Z`, or an offset: `90s`") from None
    return ORIGIN + parse_duration(text)


def compared(expected: Iterable[Expectation], got: Iterable[Decision]) -> list[Line]:
    """Both in one list by time, each decision that was expected and got but once."""
    wanted, found = list(expected), list(got)
    pairs = _pairs(wanted, found)
    lines = [_got(each, " ") for each in pairs.values()]
    lines += [_wanted(each) for index, each in enumerate(wanted) if index not in pairs]
    paired = {id(each) for each in pairs.values()}
    lines += [_got(each, "+") for each in found if id(each) not in paired]
    order = {" ": 0, "-": 1, "+": 2}
    return sorted(lines, key=lambda line: (line.at is None, line.at or 0, line.automation, order[line.mark]))


def _pairs(wanted: Sequence[Expectation], found: Sequence[Decision]) -> dict[int, Decision]:
    """As many expectations as possible, each with a decision of its own: an expectation that says little must not
    take the only one that fits another."""
    taken: dict[int, int] = {}  # decision -> expectation

    def place(index: int, tried: set[int]) -> bool:
        for number, decision in enumerate(found):
            if number in tried or not _fits(wanted[index], decision):
                continue
            tried.add(number)
            if number not in taken or place(taken[number], tried):
                taken[number] = index
                return True
        return False

    for index in range(len(wanted)):
        place(index, set())
    return {index: found[number] for number, index in taken.items()}


def _fits(wanted: Expectation, got: Decision) -> bool:
    if (_named(wanted), _kind(wanted)) != (got.automation, got.kind):
        return False
    if wanted.at is not None and moment(wanted.at) // 1_000 != got.at // 1_000:  # to the millisecond
        return False
    if "key" in wanted.model_fields_set and canonical(wanted.key) != got.key:
        return False
    if wanted.events is not None and sorted(wanted.events) != sorted(got.events):
        return False
    return wanted.reason is None or got.reason.startswith(wanted.reason)


def _got(decision: Decision, mark: str) -> Line:
    details = {"key": decision.key_value, "events": decision.events}
    details |= {"reason": decision.reason} if decision.reason else {}
    return Line(mark, decision.at, decision.kind, decision.automation, details)


def _wanted(wanted: Expectation) -> Line:
    names = [name for name in ("key", "events", "reason") if name in wanted.model_fields_set]
    details: dict[str, Any] = {name: getattr(wanted, name) for name in names}
    at = moment(wanted.at) if wanted.at is not None else None
    return Line("-", at, _kind(wanted), _named(wanted), details)


def _kind(wanted: Expectation) -> str:
    return next((kind for key, kind in _KINDS.items() if getattr(wanted, key) is not None), "")


def _named(wanted: Expectation) -> str:
    return wanted.fires or wanted.resolves or wanted.suppresses or ""


def _until(test: TestCase, events: Sequence[Mapping[str, Any]]) -> Instant | None:
    """As the test says, else the last moment at which something is expected, if that is after all events."""
    if test.until is not None:
        return moment(test.until)
    arrivals = [instant_of(event.get("recordedtime") or event["time"]) for event in events]
    last = max((moment(each.at) for each in test.expect if each.at is not None), default=0)
    return last if last > max(arrivals, default=0) else None


def _offset(at: Instant) -> str:
    return format_duration(at - ORIGIN) if ORIGIN <= at < ORIGIN + 366 * 86_400_000_000 else format_instant(at)


def problems_of_examples(
    tests: Iterable[TestCase], document: Document, path: Path, names: frozenset[str]
) -> list[Problem]:
    """What is wrong with tests; path: of the list.  names: of all rules of the namespace."""
    return [found for index, test in enumerate(tests) for found in _problems_of(test, document, (*path, index), names)]


def _problems_of(test: TestCase, document: Document, path: Path, names: frozenset[str]) -> Iterator[Problem]:
    if test.until is not None:
        yield from _of_moment(test.until, document, (*path, "until"))
    for index, given in enumerate(test.given):
        yield from _of_given(given, document, (*path, "given", index))
    for index, wanted in enumerate(test.expect):
        place = (*path, "expect", index)
        said = [key for key in _KINDS if getattr(wanted, key) is not None]
        if len(said) != 1:
            message = f"names {'two rules' if said else 'no rule'}: it needs one of `fires`, `resolves`, `suppresses`"
            yield document.problem(place, f"an expectation {message}", "write e.g. `fires: NAME`")
        elif _named(wanted) not in names:
            hint = did_you_mean(_named(wanted), names)
            yield document.problem((*place, said[0]), f"there is no rule `{_named(wanted)}`", hint)
        if wanted.at is not None:
            yield from _of_moment(wanted.at, document, (*place, "at"))


def _of_given(given: Given, document: Document, path: Path) -> Iterator[Problem]:
    bad = list(_of_moment(given.at, document, (*path, "at")))
    bad += _of_moment(given.recorded, document, (*path, "recorded")) if given.recorded is not None else []
    for key in given.model_extra or {}:
        if (hint := unknown_attribute(key)) is not None:
            bad.append(document.problem((*path, key), f"an event has no `{key}`", hint, at="key"))
    if not bad:
        try:
            from_mapping(given_event(given, 1))
        except InvalidEventError as error:
            bad.append(document.problem(path, f"this is no event: {error}"))
    yield from bad


def _of_moment(text: str, document: Document, path: Path) -> Iterator[Problem]:
    try:
        moment(text)
    except ValueError as error:
        yield document.problem(path, str(error))
