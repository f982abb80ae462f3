"""What is wrong in a rule file, and where: told to the person who wrote it.

RuleFilesError      one or more problems; carries them all
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

from penstock.events.errors import PenstockError

Path: TypeAlias = tuple[str | int, ...]  # where a value stands in its file: ("automations", 0, "when", "event")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `line` and `column` count from 1; a warning does not keep a rule from being used."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""  # a remedy: "did you mean `within`?"
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        kind = "warning: " if self.severity == "warning" else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.message}{hint}"


class RuleFilesError(PenstockError):
    """Rule files have mistakes; the text lists all of them, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """ "did you mean `x`?" for the closest known word; without a close one the list of a few, or nothing."""
    names = sorted(set(known))
    lowered = {name.lower(): name for name in reversed(names)}
    close = get_close_matches(str(word).lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{lowered[close[0]]}`?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 12 else ""
