"""A revision of the rules, made ready for the two stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

from penstock.automations import Automation
from penstock.automations.collecting import garbage_waits
from penstock.events import bus
from penstock.events.instants import Instant
from penstock.services.engine.correlation import Place, home
from penstock.services.rulebook import Revision, RuleBook
from penstock.triggers import Matcher
from penstock.triggers.forms import Absent, leaves, triggers
from penstock.triggers.keys import NO_KEY

_KEPT = 4  # revisions besides the one in force


@dataclass(frozen=True)  # without slots, for what is worked out once
class Compiled:
    """What one revision decides: the index over all leaves of all rules, and each automation by name.

    applied: when it was put in force.  loading: those that begin to run when they are put in force.
    """

    revision: int
    matcher: Matcher
    automations: dict[str, Automation]
    applied: Instant = 0
    loading: tuple[Automation, ...] = ()

    def matching(self, body: bytes) -> dict[str, list[int]]:
        """The automations that the event matches, in order of their names, each with the leaves hit."""
        hits = cast("set[tuple[str, int]]", self.matcher.match_json(body))
        if not hits:
            return {}
        found: dict[str, list[int]] = {}
        for name, number in sorted(hits):
            found.setdefault(name, []).append(number)
        return found

    def automation(self, place: Place) -> Automation | None:
        """Whose state this is; None where the rule is gone, or its `when` is another one."""
        found = self.automations.get(place.automation)
        return found if found is not None and found.when_digest == place.when_digest else None

    @cached_property
    def meanings(self) -> frozenset[tuple[str, str]]:
        """(name, digest of `when`) of every automation: whose states are kept."""
        return frozenset((each.name, each.when_digest) for each in self.automations.values())

    @cached_property
    def watching(self) -> list[str]:
        """The names of the automations that wait for an absence."""
        return [
            each.name
            for each in self.automations.values()
            if any(isinstance(trigger, Absent) for trigger in triggers(each.rule.trigger))
        ]

    def loaded_in(self, partition: int) -> list[tuple[Automation, Place]]:
        """The automations whose schedules and watches run in this match partition."""
        return self._loaded.get(partition, [])

    @cached_property
    def _loaded(self) -> dict[int, list[tuple[Automation, Place]]]:
        found: dict[int, list[tuple[Automation, Place]]] = {}
        for each in self.loading:
            place = Place(each.name, each.when_digest, NO_KEY)
            found.setdefault(home(each, NO_KEY, bus.MATCH_PARTITIONS), []).append((each, place))
        return found


def decides_alone(automation: Automation) -> bool:
    """Whether one event decides without any memory: stage one does it."""
    return automation.rule.stateless and automation.rule.stages.mode == "parallel"


class CompiledRules:
    """Compiles each revision once."""

    def __init__(self, rulebook: RuleBook) -> None:
        self._rulebook = rulebook
        self._compiled: dict[int, Compiled] = {}

    @property
    def now(self) -> Compiled:
        """The revision in force."""
        return self._compile(self._rulebook.current)

    async def current(self) -> Compiled:
        """The revision in force."""
        return self.now

    async def get(self, revision: int) -> Compiled:
        """One revision by its id, from memory or the database."""
        if revision not in self._compiled:
            self._compile(await self._rulebook.get(revision))
        return self._compiled[revision]

    def _compile(self, revision: Revision) -> Compiled:
        if revision.id not in self._compiled:
            automations = {each.name: each for each in revision.rules.rules}
            matcher = Matcher()
            with garbage_waits():
                for name, automation in automations.items():
                    for number, leaf in enumerate(leaves(automation.rule)):
                        matcher.add((name, number), leaf.pattern)
            loading = tuple(each for each in automations.values() if each.rule.needs_loading)
            self._compiled[revision.id] = Compiled(revision.id, matcher, automations, revision.applied, loading)
            for old in sorted(self._compiled.keys() - {self._rulebook.current.id, revision.id})[:-_KEPT]:
                del self._compiled[old]
        return self._compiled[revision.id]
