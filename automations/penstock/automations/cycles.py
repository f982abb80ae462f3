"""Circles of rules: one emits an event, or starts a run, that another waits for, and so on back to the first.

The hop budget ends them when they happen; here they are named before. Only types are compared: a `where` may break a
circle, which is why it is a warning.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.automations.actions import ApproveStep, EmitStep, NotifyStep, RunStep, Step
from penstock.automations.documents import Document
from penstock.automations.problems import Path, Problem
from penstock.automations.rules import Automation
from penstock.events import types
from penstock.events.event import RESERVED_PREFIX

# what each step leaves behind, whatever becomes of it
_OWN: Mapping[type[Step], frozenset[str]] = {
    RunStep: frozenset(each for each in types.ALL if each.startswith("penstock.run.")),
    ApproveStep: frozenset(each for each in types.ALL if each.startswith("penstock.approval.")),
    NotifyStep: frozenset(each for each in types.ALL if each.startswith("penstock.action.")),
    EmitStep: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule and where it stands.  filtered: some `where` of it says more than the type."""

    rule: Automation
    document: Document
    path: Path
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class _Link:
    """A rule may set off another by events of this type."""

    type: str
    to: int
    place: Path  # of what sends it
    through: str = ""  # the flow whose run sends it


@dataclass
class _Walk:
    """Tarjan's search for the parts of a graph in which everything reaches everything."""

    links: Sequence[Sequence[_Link]]
    index: dict[int, int] = field(default_factory=dict)
    low: dict[int, int] = field(default_factory=dict)
    stack: list[int] = field(default_factory=list)

    def parts(self) -> Iterator[frozenset[int]]:
        for start in range(len(self.links)):
            if start not in self.index:
                yield from self._from(start)

    def _from(self, start: int) -> Iterator[frozenset[int]]:
        """Without recursion: a chain of rules may be long.  Source: Tarjan, SIAM J. Comput. 1(2), 1972."""
        waiting = [(start, 0)]
        while waiting:
            node, next_link = waiting.pop()
            if next_link == 0:
                self.index[node] = self.low[node] = len(self.index)
                self.stack.append(node)
            else:
                done = self.links[node][next_link - 1].to
                self.low[node] = min(self.low[node], self.low[done]) if done in self.stack else self.low[node]
            if next_link < len(self.links[node]):
                waiting.append((node, next_link + 1))
                target = self.links[node][next_link].to
                if target not in self.index:
                    waiting.append((target, 0))
            elif self.low[node] == self.index[node]:
                place = self.stack.index(node)
                yield frozenset(self.stack[place:])
                del self.stack[place:]


def circles(rules: Sequence[Placed]) -> list[Problem]:
    """One warning for each group of rules that may set each other off for ever, with a chain that does."""
    links = _links(rules)
    found = []
    for part in _Walk(links).parts():
        first = min(part)
        if len(part) == 1 and all(link.to != first for link in links[first]):
            continue
        found.append(_told(rules, _chain(links, part, first)))
    return found


def _links(rules: Sequence[Placed]) -> list[list[_Link]]:
    exact: dict[tuple[str, str], list[int]] = defaultdict(list)
    wild: dict[str, list[tuple[re.Pattern[str], int]]] = defaultdict(list)
    for number, placed in enumerate(rules):
        for type_ in dict.fromkeys(placed.rule.event_types):
            if "*" in type_:
                wild[placed.rule.namespace].append((_regex(type_), number))
            else:
                exact[placed.rule.namespace, type_].append(number)
    found = []
    for placed in rules:
        targets: dict[int, _Link] = {}
        for type_, place, through in _sent(placed):
            space = placed.rule.namespace
            hit = exact[space, type_] + [number for regex, number in wild[space] if regex.fullmatch(type_)]
            for number in hit:
                if not (type_.startswith(RESERVED_PREFIX) and rules[number].filtered):
                    targets.setdefault(number, _Link(type_, number, place, through))
        found.append(list(targets.values()))
    return found


def _sent(placed: Placed) -> Iterator[tuple[str, Path, str]]:
    rule = placed.rule
    if rule.shadow:  # it acts on nothing
        return
    for section in ("then", "on_resolve", "on_error"):
        steps: Iterable[Step] = getattr(rule, section)
        for index, step in enumerate(steps):
            place = (*placed.path, section, index)
            if isinstance(step, EmitStep):
                yield step.type, (*place, "emit", "type"), ""
            through = step.flow if isinstance(step, RunStep) else ""
            for type_ in sorted(_OWN[type(step)]):
                yield type_, place, through


def _regex(type_: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, type_.split("*"))), re.DOTALL)


def _chain(links: Sequence[Sequence[_Link]], part: frozenset[int], first: int) -> list[tuple[int, _Link]]:
    """The shortest way from a rule back to itself, as (rule, its link)."""
    ways: dict[int, list[tuple[int, _Link]]] = {first: []}
    waiting = [first]
    for node in waiting:
        for link in links[node]:
            way = [*ways[node], (node, link)]
            if link.to == first:
                return way
            if link.to in part and link.to not in ways:
                ways[link.to] = way
                waiting.append(link.to)
    raise AssertionError("a part without a circle")


def _told(rules: Sequence[Placed], chain: list[tuple[int, _Link]]) -> Problem:
    first, link = chain[0]
    placed, name = rules[first], rules[first].rule.name
    if len(chain) == 1 and not link.through:
        message = f"`{name}` may trigger itself: it emits `{link.type}`, and waits for it"
        return placed.document.problem(link.place, message, "choose another type", severity="warning")
    way = " → ".join(
        f"{rules[number].rule.name} → {f'run of {each.through} → ' if each.through else ''}{each.type}"
        for number, each in chain
    )
    message = f"these rules may trigger each other without end: {way} → {name}"
    hint = "choose another type, or let a `where` tell the events apart; the hop budget ends such chains"
    return placed.document.problem(link.place, message, hint, severity="warning")
