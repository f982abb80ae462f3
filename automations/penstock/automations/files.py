"""Rule files: read, checked as a whole, compiled. What is broken hides neither other mistakes nor what is right.

The texts of a revision are all that is kept of it: `load_texts` makes the same rules of them anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias, TypeVar

from penstock.automations import models, resources
from penstock.automations.actions import OWNER, Known
from penstock.automations.collecting import garbage_waits
from penstock.automations.cycles import Placed, circles
from penstock.automations.documents import Document, read
from penstock.automations.event_schemas import Schemas
from penstock.automations.examples import problems_of_examples
from penstock.automations.messages import show, unknown_key, validate
from penstock.automations.problems import Path, Problem, RuleFilesError, did_you_mean
from penstock.automations.rules import (
    DEFAULT_NAMESPACE,
    Automation,
    Surroundings,
    compile_automation,
    problems_of_broken,
)
from penstock.automations.warnings import warnings_of_credentials
from penstock.automations.when import filters

T = TypeVar("T")
Named: TypeAlias = Mapping[tuple[str, str], T]  # by (namespace, name)
Flows: TypeAlias = Mapping[str, Mapping[str, Any]]  # the JSON schema of the parameters, by name

SECTIONS: dict[str, Any] = {
    "users": resources.User,
    "groups": resources.Group,
    "channels": resources.Channel,
    "webhooks": resources.Webhook,
    "sensors": resources.Sensor,
    "schedules": resources.Schedule,
    "limits": resources.Limit,
}
KEYS = ("namespace", "vars", "defaults", "automations", *SECTIONS)
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that a set of files says and that can be used, and everything that is wrong with them.

    `problems` are in order of file and line; one that is no warning has kept something out.
    """

    rules: tuple[Automation, ...] = ()
    users: Named[resources.User] = field(default_factory=dict)
    groups: Named[resources.Group] = field(default_factory=dict)
    channels: Named[resources.Channel] = field(default_factory=dict)
    webhooks: Named[resources.Webhook] = field(default_factory=dict)
    sensors: Named[resources.HostSensor | resources.MqttSensor] = field(default_factory=dict)
    schedules: Named[resources.Schedule] = field(default_factory=dict)
    limits: Named[resources.Limit] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that are no warnings."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def require(self) -> RuleSet:
        """Itself, if nothing is wrong.  Raises RuleFilesError with all errors."""
        if self.errors:
            raise RuleFilesError(self.errors)
        return self

    def rule(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> Automation | None:
        """The rule of that name."""
        return next((rule for rule in self.rules if rule.key == (namespace, name)), None)


def load(
    paths: Iterable[str | FilePath] | str | FilePath, *, flows: Flows | None = None, schemas: Schemas | None = None
) -> RuleSet:
    """Rules of files and of directories (searched for *.yaml and *.yml, hidden ones left out).

    flows: the registered flows; None: unknown, so that each `run` is a warning.
    schemas: the JSON Schema of `data` by event type, as far as it is known.
    """
    texts, problems = read_texts(paths)
    found = load_texts(texts, flows=flows, schemas=schemas)
    return _with_problems(found, problems)


def read_texts(paths: Iterable[str | FilePath] | str | FilePath) -> tuple[dict[str, str], list[Problem]]:
    """The text of each rule file by its path, and what could not be read."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for given in [paths] if isinstance(paths, str | FilePath) else paths:
        root = FilePath(given)
        files = sorted(_rule_files(root)) if root.is_dir() else [root]
        if not files:
            problems.append(Problem(str(root), 1, 1, "no rule files in this directory", "name them *.yaml", "warning"))
        for file in files:
            try:
                texts[str(file)] = file.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                problems.append(Problem(str(file), 1, 1, "is not UTF-8 text", "save it as UTF-8"))
            except OSError as error:
                problems.append(Problem(str(file), 1, 1, f"cannot be read: {error.strerror}"))
    return texts, problems


def load_texts(texts: Mapping[str, str], *, flows: Flows | None = None, schemas: Schemas | None = None) -> RuleSet:
    """Rules of texts by file name; the order of the mapping says nothing."""
    loader = _Loader(flows, schemas or {})
    with garbage_waits():
        for file in sorted(texts):
            loader.read(file, texts[file])
        return loader.result()


def _rule_files(root: FilePath) -> Iterable[FilePath]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix in SUFFIXES and not hidden and path.is_file():
            yield path


def _with_problems(found: RuleSet, more: list[Problem]) -> RuleSet:
    values = {name: getattr(found, name) for name in RuleSet.__dataclass_fields__}
    return RuleSet(**{**values, "problems": tuple(sorted({*found.problems, *more}))})


@dataclass
class _Loader:
    """First everything is read, so that references may point forward; then they are followed."""

    flows: Flows | None
    schemas: Schemas
    problems: list[Problem] = field(default_factory=list)
    things: dict[str, dict[tuple[str, str], Any]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    told: dict[tuple[str, str, str], tuple[str, int]] = field(
        default_factory=dict
    )  # (section, namespace, name) -> where
    pending: list[tuple[models.AutomationModel, Document, Path, Surroundings]] = field(default_factory=list)
    broken: list[tuple[Any, Document, Path, Surroundings]] = field(default_factory=list)
    placed: list[tuple[str, Any, Document, Path, str]] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)  # by namespace

    def read(self, file: str, text: str) -> None:
        document, problems = read(file, text)
        self.problems += problems
        if document is None:
            return
        if document.value is None:
            if not problems:
                self.problems.append(Problem(file, 1, 1, "is empty", "begin with `automations:`", "warning"))
            return
        if not isinstance(document.value, dict):
            self.problems.append(
                document.problem(
                    (), f"a rule file is a mapping, not {show(document.value)}", "begin with `automations:`"
                )
            )
            return
        for key in document.value:
            if key not in KEYS:
                self.problems.append(unknown_key(document, (), key, dict.fromkeys(KEYS), frozenset(), ""))
        around = self._surroundings(document)
        for section, kind in SECTIONS.items():
            self._section(document, section, kind, around)
        self._section(document, "automations", models.AutomationModel, around)

    def result(self) -> RuleSet:
        for section, value, document, path, namespace in self.placed:
            self._check_thing(section, value, document, path, namespace)
        rules, placed = [], []
        for model, document, path, around in self.pending:
            rule, problems = compile_automation(model, document, path, around, self._known(around.namespace))
            self.problems += problems
            if rule:
                rules.append(rule)
                placed.append(Placed(rule, document, path, filtered=filters(model.when)))
                self.problems += problems_of_examples(model.tests, document, (*path, "tests"), self._rules(around))
        self.problems += circles(placed)
        for item, document, path, around in self.broken:
            self.problems += problems_of_broken(item, document, path, around, self._known(around.namespace))
        return RuleSet(tuple(rules), **self.things, problems=tuple(sorted(set(self.problems))))

    def _surroundings(self, document: Document) -> Surroundings:
        namespace = self._one(document, "namespace", models.Name) or DEFAULT_NAMESPACE
        vars_ = self._one(document, "vars", dict[models.Identifier, Any]) or {}
        defaults = self._one(document, "defaults", models.Defaults) or models.Defaults()
        return Surroundings(namespace, vars_, defaults)

    def _one(self, document: Document, key: str, kind: Any) -> Any:
        if document.value.get(key) is None or document.is_spoiled((key,)):
            return None
        value, problems = validate(kind, document.value[key], document, (key,))
        self.problems += problems
        return value

    def _section(self, document: Document, section: str, kind: Any, around: Surroundings) -> None:
        items = document.value.get(section)
        if items is None:
            return
        if not isinstance(items, list):
            message = f"`{section}` must be a list, not {show(items)}"
            self.problems.append(document.problem((section,), message, "begin each element with a dash"))
            return
        for index, item in enumerate(items):
            self._item(document, section, kind, (section, index), item, around)

    def _item(self, document: Document, section: str, kind: Any, path: Path, item: Any, around: Surroundings) -> None:
        fresh = self._is_fresh(document, section, path, item, around.namespace)
        if document.is_spoiled(path):
            return
        value, problems = validate(kind, item, document, path)
        self.problems += problems
        if value is None and section == "automations":
            self.broken.append((item, document, path, around))
        if value is None or not fresh:
            return
        if section == "automations":
            self.pending.append((value, document, path, around))
        else:
            self.things[section][around.namespace, value.name] = value
            self.placed.append((section, value, document, path, around.namespace))

    def _is_fresh(self, document: Document, section: str, path: Path, item: Any, namespace: str) -> bool:
        """Whether no other of its kind has this name; a broken one counts too, so that each mistake is told once."""
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            return True
        line, _ = document.position((*path, "name"))
        file, first = self.told.setdefault((section, namespace, name), (document.file, line))
        if (file, first) == (document.file, line):
            return True
        message = f"{section.removesuffix('s')} `{name}` is defined twice"
        self.problems.append(
            document.problem((*path, "name"), message, f"the first one stands at {file}:{first}; rename one")
        )
        return False

    def _rules(self, around: Surroundings) -> frozenset[str]:
        """The names of all rules of a namespace."""
        return self._known(around.namespace).rules

    def _known(self, namespace: str) -> Known:
        """The names of a namespace; asked for once everything is read, so they are gathered once."""
        if namespace not in self.known:
            self.known[namespace] = self._gathered(namespace)
        return self.known[namespace]

    def _gathered(self, namespace: str) -> Known:
        def names(section: str) -> frozenset[str]:
            return frozenset(name for kind, space, name in self.told if kind == section and space == namespace)

        return Known(names("channels"), names("users"), names("groups"), self.flows, names("automations"), self.schemas)

    def _check_thing(self, section: str, value: Any, document: Document, path: Path, namespace: str) -> None:
        """What a model cannot see: exactly one of two keys, and references to people."""
        self.problems += warnings_of_credentials(value, document, path)
        match value:
            case resources.Channel():
                self._exactly_one(value, ("slack", "sms"), document, path)
                self._check_people(value.sms.to if value.sms else (), document, (*path, "sms", "to"), namespace)
            case resources.Schedule():
                self._exactly_one(value, ("every", "cron"), document, path)
            case resources.Group():
                self._check_people(value.members, document, (*path, "members"), namespace)

    def _exactly_one(self, value: Any, keys: tuple[str, str], document: Document, path: Path) -> None:
        found = [key for key in keys if getattr(value, key) is not None]
        if len(found) == 1:
            return
        message = (
            f"`{value.name}` has both `{keys[0]}` and `{keys[1]}`"
            if found
            else f"`{value.name}` has neither `{keys[0]}` nor `{keys[1]}`"
        )
        place = (*path, found[-1]) if found else (*path, "name")
        self.problems.append(
            document.problem(place, message, "write exactly one of them", at="key" if found else "value")
        )
        self.things[str(path[0])] = {
            key: thing for key, thing in self.things[str(path[0])].items() if thing is not value
        }

    def _check_people(self, people: tuple[str, ...], document: Document, path: Path, namespace: str) -> None:
        known = self._known(namespace).users | {OWNER}
        for index, person in enumerate(people):
            name = person.removeprefix("user/")
            if person.startswith("+"):
                continue
            if name == person:
                self.problems.append(
                    document.problem(
                        (*path, index),
                        f"`{person}` is neither a person nor a number",
                        "write `user/NAME` or `+4312345`",
                    )
                )
            elif name not in known:
                hint = did_you_mean(person, (f"user/{each}" for each in known))
                self.problems.append(
                    document.problem((*path, index), f"there is no user `{name}`", hint or "define it under `users:`")
                )
