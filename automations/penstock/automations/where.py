"""`where`: the sugar of rule files over the pattern language, turned into what `penstock.triggers.Pattern` takes.

A bare scalar is a list of one element, a dotted key nests. A bare null, an operator outside a list and a `$or` that is
no list of two patterns are refused, where EventBridge would silently read something else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.automations.documents import Document
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.scopes import is_known_attribute, unknown_attribute
from penstock.triggers.errors import PatternError
from penstock.triggers.pattern import Pattern

OPERATORS = (
    "prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "exists", "cidr", "exactly",
)  # fmt: skip
_OR = "$or"


@dataclass
class Sugar:
    """Unfolds one `where`; collects what is wrong with it."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    origins: dict[str, Path] = field(default_factory=dict)  # place in the pattern, dotted -> place in the file

    def unfold(self, where: dict[str, Any], path: Path, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
        """The strict pattern; what could not be understood is left out and told in `problems`."""
        pattern: dict[str, Any] = {}
        for key, value in where.items():
            place = (*path, key)
            if key == _OR:
                self._put(pattern, (_OR,), self._alternatives(value, place, prefix), place, prefix)
                continue
            names = tuple(key.split("."))
            if not all(names):
                self._add(place, f"`{key}` is no path: a name is empty", at_key=True)
            elif not prefix and names[0] != _OR and (hint := unknown_attribute(names[0])) is not None:
                self._add(place, f"an event has no `{names[0]}`", hint, at_key=True)
            else:
                if not prefix and names[0] != _OR and not is_known_attribute(names[0]):
                    self._warn_of_extension(key, place)
                self._put(pattern, names, self._value(value, place, (*prefix, *names)), place, prefix)
        return pattern

    def _warn_of_extension(self, key: str, path: Path) -> None:
        """Events may have extension attributes of any name, but mostly `data` was forgotten."""
        message = f"`{key}` is looked for beside `data`, among the attributes of the event"
        found = self.document.problem(path, message, f"did you mean `data.{key}`?", at="key", severity="warning")
        self.warnings.append(found)

    def _value(self, value: Any, path: Path, prefix: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            self._refuse_bare_operators(value, path)
            return self.unfold(value, path, prefix)
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._check_element(item, (*path, index))
            return value
        if value is None:
            self._add(
                path,
                "a bare null matches nothing",
                "write `[null]` for the value null, or `[{exists: false}]` for a missing field",
            )
        return [value]

    def _alternatives(self, value: Any, path: Path, prefix: tuple[str, ...]) -> Any:
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(item, dict) and item for item in value):
            self._add(
                path,
                "`$or` needs a list of two or more patterns",
                "write e.g. `$or: [{subject: a}, {data: {level: 3}}]`",
            )
            return []
        found = []
        for index, item in enumerate(value):
            self._refuse_bare_operators(item, (*path, index))
            found.append(self.unfold(item, (*path, index), (*prefix, _OR, str(index)) if prefix else ()))
        return found

    def _refuse_bare_operators(self, value: dict[str, Any], path: Path) -> None:
        """`celsius: {numeric: [">", 8]}` would be a field named numeric, and match nothing."""
        for key, operand in value.items():
            if key in OPERATORS and ("-" in key or key == "numeric" or not isinstance(operand, dict | list)):
                name = path[-1]
                self._add(
                    (*path, key),
                    f"the operator `{key}` must stand in a list",
                    f"write `{name}: [{{{key}: …}}]`",
                    at_key=True,
                )

    def _check_element(self, element: Any, path: Path) -> None:
        if not isinstance(element, dict):
            return
        for key in element:
            if key not in OPERATORS:
                self._add((*path, key), f"unknown operator `{key}`", did_you_mean(key, OPERATORS), at_key=True)

    def _put(
        self, pattern: dict[str, Any], names: tuple[str, ...], value: Any, path: Path, prefix: tuple[str, ...]
    ) -> None:
        for name in names[:-1]:
            inner = pattern.setdefault(name, {})
            if not isinstance(inner, dict):
                self._add(path, f"`{path[-1]}` reaches into `{name}`, which has values of its own here", at_key=True)
                return
            pattern = inner
        last = names[-1]
        if last not in pattern:
            pattern[last] = value
        elif isinstance(pattern[last], dict) and isinstance(value, dict) and not pattern[last].keys() & value.keys():
            pattern[last].update(value)
        else:
            self._add(path, f"`{path[-1]}` is said twice, once with dots and once nested", at_key=True)
        self.origins[".".join((*prefix, *names))] = path

    def _add(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, at="key" if at_key else "value"))


def compile_pattern(
    document: Document, types: tuple[str, ...], where: dict[str, Any] | None, path: Path
) -> tuple[Pattern | None, dict[str, Any], list[Problem]]:
    """The pattern of `event` and `where` together, the strict form of `where`, and what is wrong; path: of `where`."""
    sugar = Sugar(document)
    strict = sugar.unfold(where or {}, path)
    if not sugar.problems and where is not None and not where:
        sugar.problems.append(
            document.problem(path, "`where` is empty", "leave it out to match every event of these types")
        )
    if types != ("*",) and _names_type(strict):
        sugar.problems.append(
            document.problem(path, "`where` names `type`, which `event` has settled", "say the types in `event`")
        )
    if sugar.problems:
        return None, strict, sugar.problems
    try:
        return Pattern({**type_pattern(types), **strict}), strict, sugar.warnings
    except PatternError as error:
        return None, strict, [document.problem(_origin(sugar, error.path, path), error.reason)]


def type_pattern(types: tuple[str, ...]) -> dict[str, Any]:
    """`event` in the pattern language: `*` is any run of characters; nothing where every type is meant."""
    if "*" in types:
        return {"type": [{"exists": True}]}
    return {"type": [_one_type(name) for name in types]}


def _one_type(name: str) -> Any:
    if "*" not in name:
        return {"exactly": name}
    parts = [part.replace("\\", "\\\\") for part in name.split("*")]
    inner = [
        part for part in parts[1:-1] if part
    ]  # `a**b` says no more than `a*b`, and the pattern language refuses it
    return {"wildcard": "*".join([parts[0], *inner, parts[-1]])}


def _names_type(strict: dict[str, Any]) -> bool:
    branches = strict.get(_OR, [])
    return "type" in strict or any(isinstance(branch, dict) and _names_type(branch) for branch in branches)


def _origin(sugar: Sugar, dotted: str, path: Path) -> Path:
    """The place in the file of a place in the pattern, or of its closest ancestor."""
    names = dotted.replace("[", ".").replace("]", "").split(".")
    for length in range(len(names), 0, -1):
        if found := sugar.origins.get(".".join(names[:length])):
            return found
    return path
