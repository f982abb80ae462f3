"""The steps of a rule, compiled: every template checked, every name that they refer to known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from penstock.automations import models
from penstock.automations.compiling import compile_template
from penstock.automations.conditions import CelCondition, compile_if
from penstock.automations.documents import Document
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.scopes import Scope, action_scope, condition_scope
from penstock.automations.templates import Template, TemplateError
from penstock.events.event import RESERVED_PREFIX

OWNER = "owner"  # the user that `penstock up` makes at first start


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried, and the pauses between; microseconds."""

    attempts: int = 5
    delay: int = 1_000_000
    backoff: float = 2.0
    max_delay: int = 300_000_000

    def pause(self, attempt: int) -> int:
        """The pause after the attempt-th try (from 1), without jitter."""
        return int(min(self.delay * self.backoff ** min(attempt - 1, 100), self.max_delay))


@dataclass(frozen=True, slots=True)
class RunStep:
    """Launch a run. `parameters`: JSON whose leaves may be templates.  condition: of each step; None: always."""

    name: str | None
    flow: str
    parameters: Mapping[str, Any]
    pool: str | None
    wait: bool  # whether the step is done when the run has ended, rather than when it is accepted
    retry: RetryPolicy
    timeout: int | None
    condition: CelCondition | None = None
    queue: str = "default"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class NotifyStep:
    """Send a message."""

    name: str | None
    channel: str
    text: Template
    title: Template | None
    retry: RetryPolicy
    timeout: int | None
    condition: CelCondition | None = None


@dataclass(frozen=True, slots=True)
class ApproveStep:
    """Ask people. `timeout`: microseconds."""

    name: str | None
    ask: Template
    approvers: tuple[str, ...]
    needs: int
    timeout: int
    on_timeout: Literal["reject", "approve"]
    four_eyes: bool
    condition: CelCondition | None = None


@dataclass(frozen=True, slots=True)
class EmitStep:
    """Send an event. `data`: JSON whose leaves may be templates."""

    name: str | None
    type: str
    subject: Template | None
    source: Template | None
    data: Any
    condition: CelCondition | None = None


Step: TypeAlias = RunStep | NotifyStep | ApproveStep | EmitStep


@dataclass(frozen=True, slots=True)
class Known:
    """The names that steps of one namespace may refer to.

    flows: JSON schema of the parameters by name; None where no registry was given.
    schemas: JSON schema of `data` by event type.
    """

    channels: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    flows: Mapping[str, Mapping[str, Any]] | None = None
    rules: frozenset[str] = frozenset()
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class Compiler:
    """Compiles the steps of one rule, in order; collects what is wrong with them."""

    document: Document
    known: Known
    vars: frozenset[str]
    default_retry: models.Retry | None = None
    names: set[str] = field(default_factory=set)  # of the steps so far
    problems: list[Problem] = field(default_factory=list)

    def steps(self, actions: tuple[models.Step, ...], path: Path) -> tuple[Step, ...]:
        """All of one list; what is wrong is in `problems`."""
        return tuple(self.step(action, (*path, index)) for index, action in enumerate(actions))

    def step(self, action: models.Step, path: Path) -> Step:
        """One step; later ones may refer to it."""
        condition, problems = compile_if(
            action.if_, condition_scope(self.vars, self.names), self.document, (*path, "if")
        )
        self.problems += problems
        found = replace(self._step(action, path), condition=condition)
        if action.name in self.names:
            self._add((*path, "name"), f"two steps are named `{action.name}`", "choose another name")
        self.names |= {action.name} if action.name else set()
        return found

    def name_only(self, step: Any) -> None:
        """A step that is broken still has its name, if it has one."""
        name = step.get("name") if isinstance(step, dict) else None
        self.names |= {name} if isinstance(name, str) else set()

    def _step(self, action: models.Step, path: Path) -> Step:
        match action:
            case models.Run():
                return self._run(action, path)
            case models.Notify():
                return self._notify(action, path)
            case models.Approve():
                return self._approve(action, (*path, "approve"))
            case models.Emit():
                return self._emit(action, (*path, "emit"))
        raise AssertionError(f"no such action: {action!r}")

    def _run(self, action: models.Run, path: Path) -> RunStep:
        self._check_flow(action, path)
        parameters = self._tree(action.with_, (*path, "with"), self._scope())
        return RunStep(
            action.name,
            action.run,
            parameters,
            action.pool,
            action.wait == "completed",
            self._retry(action),
            action.timeout,
            queue=action.queue,
            priority=action.priority,
        )

    def _notify(self, action: models.Notify, path: Path) -> NotifyStep:
        if action.notify not in self.known.channels:
            hint = did_you_mean(action.notify, self.known.channels) or "define it under `channels:`"
            self._add((*path, "notify"), f"there is no channel `{action.notify}`", hint)
        scope = self._scope()
        text = self._template(action.text, (*path, "text"), scope)
        title = self._template(action.title, (*path, "title"), scope) if action.title else None
        return NotifyStep(action.name, action.notify, text, title, self._retry(action), action.timeout)

    def _approve(self, action: models.Approve, path: Path) -> ApproveStep:
        spec = action.approve
        for index, approver in enumerate(spec.approvers):
            self._check_approver(approver, (*path, "approvers", index))
        if (
            spec.needs > 1
            and len(spec.approvers) < spec.needs
            and all(who.startswith("user/") for who in spec.approvers)
        ):
            self._add((*path, "needs"), f"needs {spec.needs} people, and only {len(spec.approvers)} may approve")
        ask = self._template(
            spec.ask, (*path, "ask"), self._open_scope("in what people are asked, which is stored and shown")
        )
        return ApproveStep(action.name, ask, spec.approvers, spec.needs, spec.timeout, spec.on_timeout, spec.four_eyes)

    def _emit(self, action: models.Emit, path: Path) -> EmitStep:
        spec, scope = action.emit, self._open_scope("in an event, which is stored and read by many")
        if spec.type.startswith(RESERVED_PREFIX):
            self._add(
                (*path, "type"),
                f"type `{spec.type}` is reserved: `penstock.*` are Penstock's own events",
                "choose another type",
            )
        if "{{" in spec.type or "*" in spec.type:
            self._add(
                (*path, "type"),
                "the type of an event must be plain text, without templates and wildcards",
                "put what varies into `subject` or `data`",
            )
        subject = self._template(spec.subject, (*path, "subject"), scope) if spec.subject else None
        source = self._template(spec.source, (*path, "source"), scope) if spec.source else None
        return EmitStep(action.name, spec.type, subject, source, self._tree(spec.data, (*path, "data"), scope))

    def _check_flow(self, action: models.Run, path: Path) -> None:
        flows = self.known.flows
        if flows is None:
            message = f"flow `{action.run}` could not be checked, since no flows are known here"
            self.problems.append(
                self.document.problem((*path, "run"), message, "deploy it, or start a worker", severity="warning")
            )
        elif action.run not in flows:
            self._add(
                (*path, "run"),
                f"there is no deployment or flow `{action.run}`",
                did_you_mean(action.run, flows) or "deploy it first",
            )
        else:
            self._check_parameters(action, flows[action.run], path)

    def _check_parameters(self, action: models.Run, schema: Mapping[str, Any], path: Path) -> None:
        known = schema.get("properties", {})
        for name, value in action.with_.items():
            if name not in known and not schema.get("additionalProperties", False):
                message = f"flow `{action.run}` has no parameter `{name}`"
                self._add((*path, "with", name), message, did_you_mean(name, known), at_key=True)
            elif name in known and not fits(value, known[name]):
                self._add(
                    (*path, "with", name), f"parameter `{name}` of flow `{action.run}` must be {kinds_of(known[name])}"
                )
        for name in schema.get("required", ()):
            if name not in action.with_:
                place = (*path, "with") if action.with_ else (*path, "run")
                self._add(place, f"flow `{action.run}` needs the parameter `{name}`", f"add `{name}: …` under `with`")

    def _check_approver(self, approver: str, path: Path) -> None:
        kind, _, name = approver.partition("/")
        known = self.known.groups if kind == "group" else self.known.users | {OWNER}
        if name not in known:
            hint = did_you_mean(approver, (f"{kind}/{each}" for each in known)) or f"define it under `{kind}s:`"
            self._add(path, f"there is no {kind} `{name}`", hint)

    def _retry(self, action: models.Run | models.Notify) -> RetryPolicy:
        chosen = (
            action.retry if "retry" in action.model_fields_set or self.default_retry is None else self.default_retry
        )
        return RetryPolicy(chosen.attempts, chosen.delay, chosen.backoff, chosen.max_delay)

    def _scope(self) -> Scope:
        return action_scope(self.vars, self.names)

    def _open_scope(self, place: str) -> Scope:
        return self._scope().without("secrets", place)

    def _tree(self, value: Any, path: Path, scope: Scope) -> Any:
        if isinstance(value, str):
            return self._template(value, path, scope)
        if isinstance(value, dict):
            return {key: self._tree(item, (*path, key), scope) for key, item in value.items()}
        if isinstance(value, list):
            return [self._tree(item, (*path, index), scope) for index, item in enumerate(value)]
        return value

    def _template(self, source: str, path: Path, scope: Scope) -> Template:
        try:
            return compile_template(source, scope)
        except TemplateError as error:
            self._add(path, error.reason, error.hint)
            return Template(source, False, frozenset(), None)

    def _add(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, at="key" if at_key else "value"))


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip
_WORDS = {
    "string": "text", "integer": "a whole number", "number": "a number", "boolean": "`true` or `false`",
    "array": "a list", "object": "a mapping", "null": "null",
}  # fmt: skip


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a literal has a kind that the schema allows; templates are known only when they are rendered."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return True
    kinds = _allowed(schema)
    return not kinds or any(
        isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds
    )


def _allowed(schema: Mapping[str, Any]) -> list[str]:
    """The JSON kinds that a schema names outright; none where it says more than we read."""
    kinds = schema.get("type", [])
    named = [kinds] if isinstance(kinds, str) else list(kinds)
    return named if all(kind in _KINDS for kind in named) else []


def kinds_of(schema: Mapping[str, Any]) -> str:
    return " or ".join(_WORDS[kind] for kind in _allowed(schema))
