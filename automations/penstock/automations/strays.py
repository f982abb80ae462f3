"""Which form a `when` has, and which of its keys do not belong to it: each with the remedy."""

from __future__ import annotations

from penstock.automations.documents import Document
from penstock.automations.problems import Path, Problem
from penstock.automations.when import BESIDE, FORMS, OUTERMOST, Trigger, said

_NEEDS = {"of": "at_least", "after": "absent", "from": "changed", "to": "changed", "for": "changed"}
_EXAMPLES = {
    "at_least": "add e.g. `at_least: 2`", "absent": "add e.g. `absent: {event: order.paid}`",
    "changed": "add e.g. `changed: data.state`",
}  # fmt: skip
_COMPOSITES = ("sequence", "all", "any", "at_least")


def form_of(document: Document, model: Trigger, path: Path) -> tuple[str, list[Problem]]:
    """The key that names the form ("": none does), and what stands beside it without belonging there."""
    present = [key for key in said(model) if key not in OUTERMOST]
    problems = [
        document.problem((*path, key), f"`{key}` has no value", "write one, or remove the key", at="key")
        for key in present
        if key not in ("from", "to") and getattr(model, "for_" if key == "for" else key) is None
    ]
    found = [key for key in present if key in FORMS]
    if "metric" in found or "changed" in found:
        found = [key for key in found if key != "event"]
    if problems:
        return "", problems
    if not found:
        return "", [_missing(document, present, path)]
    if len(found) > 1:
        found.sort(key=lambda key: document.position((*path, key), at="key"))
        message = f"{_place(path)} has both `{found[0]}` and `{found[1]}`"
        hint = "write one of them; `all`, `any` and `sequence` join several"
        return "", [document.problem((*path, found[1]), message, hint, at="key")]
    strays = [key for key in present if key != found[0] and key not in BESIDE[found[0]]]
    problems = [document.problem((*path, key), *_stray(key, found[0]), at="key") for key in strays]
    if found[0] == "at_least" and "of" not in present:
        problems.append(document.problem((*path, "at_least"), "`at_least` needs `of`", "list them: `of: [{…}, {…}]`"))
    return ("" if problems else found[0]), problems


def _missing(document: Document, present: list[str], path: Path) -> Problem:
    for key in present:
        if key in _NEEDS:
            needed = _NEEDS[key]
            return document.problem((*path, key), f"`{key}` needs `{needed}`", _EXAMPLES[needed], at="key")
    return document.problem(path, f"`event` is missing in {_place(path)}", "add `event: …`")


def _stray(key: str, form: str) -> tuple[str, str]:
    """Message and remedy."""
    if key == "for" and form == "metric":
        return "`for` stands inside `metric`", "write `metric: {…, for: 2m}`"
    if key in _NEEDS:
        return f"`{key}` does not belong to `{form}`", f"it needs `{_NEEDS[key]}`"
    if key in ("event", "where", "count") and form in _COMPOSITES:
        return f"`{key}` does not belong to `{form}`", "write it at one of its triggers"
    if key in ("event", "where") and form == "absent":
        return f"`{key}` does not belong beside `absent`", f"write it inside: `absent: {{{key}: …}}`"
    if key == "within" and form == "metric":
        return "`within` does not belong to `metric`", "its window is `over`"
    if key == "count" and form == "absent":
        return "`count` does not belong to `absent`", "remove it: nothing is nothing"
    if key == "count" and form == "metric":
        return "`count` does not belong to `metric`", "write `stat: count` with a `threshold`"
    return f"`{key}` does not belong to `{form}`", "remove it"


def _place(path: Path) -> str:
    names = [str(part) for part in path if isinstance(part, str)]
    return f"`{names[-1]}`" if names else "`when`"
