"""From the shape of `when` to the core's forms: which form it is, what is wrong with it, and what it means.

The meaning is JSON without comments, sugar, defaults and inherited keys: state belongs to its digest. Keys of later
versions leave the meaning of older rules alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.automations.documents import Document
from penstock.automations.due_times import Days, DueTimes
from penstock.automations.durations import format_duration
from penstock.automations.problems import Path, Problem
from penstock.automations.scopes import unknown_attribute
from penstock.automations.strays import form_of
from penstock.automations.when import MetricModel, ScheduleModel, Selection, Trigger
from penstock.automations.where import compile_pattern
from penstock.triggers import forms
from penstock.triggers.keys import canonical
from penstock.triggers.pattern import Pattern

_NOTHING = forms.Leaf(Pattern({"type": [{"exists": False}]}))
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A trigger, what it means, and the event types that it looks at."""

    trigger: forms.Trigger
    meaning: Mapping[str, Any]
    types: tuple[str, ...] = ()


@dataclass
class TriggerCompiler:
    """Compiles the `when` of one rule; collects what is wrong with it.  owner: namespace/name, for the jitter."""

    document: Document
    owner: str
    problems: list[Problem] = field(default_factory=list)

    def compile(self, model: Trigger, path: Path, per: forms.Per = ()) -> Compiled:
        """One trigger.  per: that of the composite round it.  Only to be used where `problems` has no errors."""
        form, problems = form_of(self.document, model, path)
        self.problems += problems
        per = self._per(model.per, path) or per
        match form:
            case "event":
                return self._count(model, path, per)
            case "absent":
                return self._absent(model, path, per)
            case "metric":
                return self._metric(model, path, per)
            case "changed":
                return self._changed(model, path, per)
            case "schedule":
                return self._schedule(model.schedule, path)
            case "":
                return Compiled(forms.Count(_NOTHING), {})
        return self._composite(model, form, path, per)

    def _count(self, model: Trigger, path: Path, per: forms.Per) -> Compiled:
        if model.count > 1 and model.within is None:
            self._add((*path, "count"), f"`count: {model.count}` needs a window", "add e.g. `within: 5m`", key=True)
        leaf, meaning, types = self._leaf(model, path, per)
        if model.count > 1:
            meaning |= {"count": model.count, "within": format_duration(model.within or 0)}
        return Compiled(forms.Count(leaf, model.count, model.within), meaning, types)

    def _absent(self, model: Trigger, path: Path, per: forms.Per) -> Compiled:
        if model.within is None:
            self._add((*path, "absent"), "`absent` needs `within`", "add e.g. `within: 5m`", key=True)
        within = model.within or 1
        leaf, absent, types = self._selection(model.absent, (*path, "absent"), per)
        if model.after is None:
            meaning = {"absent": absent, "within": format_duration(within)}
            return Compiled(forms.Absent(leaf, within), meaning, types)
        after, question, more = self._selection(model.after, (*path, "after"), per)
        meaning = {"absent": absent, "after": question, "within": format_duration(within)}
        return Compiled(forms.Absent(leaf, within, after), meaning, (*types, *more))

    def _composite(self, model: Trigger, form: str, path: Path, per: forms.Per) -> Compiled:
        key = "of" if form == "at_least" else form
        found = [self.compile(child, (*path, key, index), per) for index, child in enumerate(getattr(model, key) or ())]
        types = tuple(type_ for each in found for type_ in each.types)
        within = {} if model.within is None else {"within": format_duration(model.within)}
        if form == "sequence":
            steps = tuple(each.trigger for each in found)
            meaning = {"sequence": [each.meaning for each in found], **within}
            return Compiled(forms.Sequence(steps, model.within), meaning, types)
        n = {"all": len(found), "any": 1}.get(form, model.at_least or 1)
        if n > len(found):
            message = f"`at_least: {n}` of {len(found)} can never be"
            self._add((*path, "at_least"), message, f"write {len(found)} or less", key=True)
        # In an order of their own: another order of the same children means the same, and their state stays theirs.
        found.sort(key=lambda each: canonical(each.meaning))
        joined: dict[str, Any] = {"at_least": n, "of": [each.meaning for each in found], **within}
        return Compiled(forms.AtLeast(n, tuple(each.trigger for each in found), model.within), joined, types)

    def _metric(self, model: Trigger, path: Path, per: forms.Per) -> Compiled:
        metric = model.metric
        assert metric is not None  # noqa: S101 -- it names the form
        place = (*path, "metric")
        self._check_path(metric.value, (*place, "value"))
        if metric.clear is not None and _wrong_side(metric):
            side, clear = ("below", "clear") if metric.op.startswith(">") else ("above", "clear")
            message = f"`clear: {metric.clear}` lies on the wrong side of `{metric.op} {metric.threshold}`"
            self._add((*place, clear), message, f"write {metric.threshold} or a number {side} it")
        leaf, meaning, types = self._leaf(model, path, per)
        said: dict[str, Any] = {
            "value": metric.value,
            "over": format_duration(metric.over),
            "stat": metric.stat,
            "op": metric.op,
        }
        said |= {"threshold": metric.threshold}
        said |= {"for": format_duration(metric.for_)} if metric.for_ else {}
        said |= {"clear": metric.clear} if metric.clear is not None else {}
        trigger = forms.Metric(
            leaf, metric.value, metric.over, metric.stat, metric.op, metric.threshold, metric.for_, metric.clear
        )
        return Compiled(trigger, {**meaning, "metric": said}, types)

    def _changed(self, model: Trigger, path: Path, per: forms.Per) -> Compiled:
        self._check_path(model.changed or "", (*path, "changed"))
        ends = {key: getattr(model, f"{key}_" if key == "from" else key) for key in ("from", "to")}
        ends = {key: value for key, value in ends.items() if {key, f"{key}_"} & model.model_fields_set}
        if len(ends) == 2 and canonical(ends["from"]) == canonical(ends["to"]):
            self._add((*path, "to"), "nothing changes from a value to the same", "write two values, or only one")
        leaf, meaning, types = self._leaf(model, path, per)
        meaning |= {"changed": model.changed, **ends}
        meaning |= {"for": format_duration(model.for_)} if model.for_ else {}
        from_, to = ends.get("from", forms.UNSET), ends.get("to", forms.UNSET)
        return Compiled(forms.Changed(leaf, model.changed or "", from_, to, model.for_), meaning, types)

    def _schedule(self, model: ScheduleModel | None, path: Path) -> Compiled:
        assert model is not None  # noqa: S101 -- it names the form
        place = (*path, "schedule")
        given = [key for key in ("cron", "every", "rrule") if getattr(model, key) is not None]
        given.sort(key=lambda key: self.document.position((*place, key), at="key"))
        if len(given) != 1:
            words = f"both `{given[0]}` and `{given[1]}`" if given else "none of `cron`, `every` and `rrule`"
            at = (*place, given[1]) if given else place
            self._add(at, f"`schedule` has {words}", "write exactly one of them", key=bool(given))
        meaning = {"schedule": _meaning_of_schedule(model)}
        seed = f"{self.owner}/{canonical(meaning)}"
        days = _days(model)
        due = DueTimes(model.every, model.cron, model.rrule, model.timezone, model.jitter, days, seed)
        if len(given) == 1 and not self.problems and due.next_after(0) is None:
            self._add((*place, given[0]), "this schedule is never due", "look at its dates")
        return Compiled(forms.Schedule(due.next_after, model.catch_up, overlap=model.overlap), meaning)

    def _leaf(
        self, model: Trigger | Selection, path: Path, per: forms.Per
    ) -> tuple[forms.Leaf, dict[str, Any], tuple[str, ...]]:
        types = model.event or ("*",)
        pattern, strict, found = compile_pattern(self.document, types, model.where, (*path, "where"))
        self.problems += found
        meaning: dict[str, Any] = {"event": sorted(set(types))}
        meaning |= {"where": dict(strict)} if strict else {}
        meaning |= {"per": list(per)} if per else {}
        return forms.Leaf(pattern or _NOTHING.pattern, per), meaning, types

    def _selection(
        self, model: Selection | None, path: Path, per: forms.Per
    ) -> tuple[forms.Leaf, dict[str, Any], tuple[str, ...]]:
        assert model is not None  # noqa: S101 -- asked before
        return self._leaf(model, path, self._per(model.per, path) or per)

    def _per(self, per: tuple[str, ...] | None, path: Path) -> forms.Per:
        for index, name in enumerate(per or ()):
            # a single path stands at `per` itself, its closest ancestor
            self._check_path(name, (*path, "per", index))
        return per or ()

    def _check_path(self, name: str, place: Path) -> None:
        if problem := problem_of_path(self.document, name, place):
            self.problems.append(problem)

    def _add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, at="key" if key else "value"))


def problem_of_path(document: Document, name: str, place: Path) -> Problem | None:
    """What is wrong with a path into an event, if anything."""
    first = name.split(".")[0]
    if not all(name.split(".")) or any(mark in name for mark in "*{}[]$ "):
        return document.problem(place, f"`{name}` is no path", "write e.g. `subject` or `data.machine`")
    if (hint := unknown_attribute(first)) is not None:
        return document.problem(place, f"an event has no `{first}`", hint)
    return None


def _wrong_side(metric: MetricModel) -> bool:
    clear = metric.clear or 0
    return clear > metric.threshold if metric.op.startswith(">") else clear < metric.threshold


def _days(model: ScheduleModel) -> Days | None:
    calendar = model.calendar
    if calendar is None:
        return None
    weekdays = frozenset(map(_WEEKDAYS.index, calendar.weekdays)) if calendar.weekdays else None
    return Days(weekdays, frozenset(calendar.only) if calendar.only else None, frozenset(calendar.except_))


def _meaning_of_schedule(model: ScheduleModel) -> dict[str, Any]:
    found: dict[str, Any] = {"timezone": model.timezone}
    if model.cron is not None:
        found["cron"] = " ".join(model.cron.lower().split())
    if model.every is not None:
        found = {"every": format_duration(model.every)} | (found if model.calendar else {})
    if model.rrule is not None:
        found["rrule"] = model.rrule.removeprefix("RRULE:")
    found |= {"jitter": format_duration(model.jitter)} if model.jitter else {}
    found |= {"catch_up": model.catch_up} if model.catch_up != "all" else {}
    found |= {"overlap": model.overlap} if model.overlap != "allow" else {}
    if (days := _days(model)) is not None:
        found["calendar"] = {
            "weekdays": None if days.weekdays is None else sorted(days.weekdays),
            "only": None if days.only is None else sorted(days.only),
            "except": sorted(days.without),
        }
    return found
