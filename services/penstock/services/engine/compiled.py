"""A revision of the rules, made ready for the two stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from penstock.automations import Automation
from penstock.automations.collecting import garbage_waits
from penstock.services.rulebook import Revision, RuleBook
from penstock.triggers import Matcher
from penstock.triggers.count import EventTrigger


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one revision decides: the index over all patterns, and each automation by name."""

    revision: int
    matcher: Matcher
    automations: dict[str, Automation]

    def matching(self, body: bytes) -> set[str]:
        """The names of the automations whose pattern the event matches."""
        return cast("set[str]", self.matcher.match_json(body))

    def trigger(self, automation: str) -> EventTrigger:
        """The trigger of an automation by name."""
        return self.automations[automation].trigger


class CompiledRules:
    """Compiles each revision once."""

    def __init__(self, rulebook: RuleBook) -> None:
        self._rulebook = rulebook
        self._compiled: dict[int, Compiled] = {}

    async def current(self) -> Compiled:
        """The revision in force."""
        return self._compile(self._rulebook.current)

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
                    matcher.add(name, automation.trigger.pattern)
            self._compiled[revision.id] = Compiled(revision.id, matcher, automations)
        return self._compiled[revision.id]
