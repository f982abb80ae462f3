"""Templates of rules: `{{ event.subject }}`, checked when a rule is loaded, rendered when it fires.

TemplateError      a template cannot work; refused at load
RenderError        it could have, but this event lacks what it names; the step fails with this text
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jinja2 import meta, nodes
from jinja2.environment import Template as CompiledTemplate
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError, UndefinedError

from penstock.automations.problems import did_you_mean
from penstock.automations.sandbox import (
    MAX_OUTPUT,
    MAX_SOURCE,
    MAX_STEPS,
    STEPS,
    LimitError,
    bound,
    forbidden,
    plain,
    sandbox,
)
from penstock.automations.secrets import NAME, Lookup, placeholder, reveal
from penstock.events.errors import PenstockError

ATTRIBUTES = (
    "id", "source", "type", "subject", "time", "data", "specversion", "datacontenttype", "dataschema", "partitionkey",
    "correlationid", "causationid", "traceparent", "hops",
)  # fmt: skip
EXTENSIONS = (
    "tracestate", "dataref", "sequence", "sequencetype", "sampledrate", "expirytime", "recordedtime", "severitytext",
    "severitynumber",
)  # fmt: skip
TRIGGER = ("automation", "kind", "key", "at", "id", "value", "from")
_EXTENSION = re.compile(r"[a-z0-9]{1,64}\Z")
_RESULT = "result"

Allowed: TypeAlias = frozenset[str] | None  # the names a variable has; None: any


class TemplateError(PenstockError):
    """A template that cannot work.  reason: what is wrong.  hint: what was probably meant."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(f"{reason} ({hint})" if hint else reason)


class RenderError(PenstockError):
    """A template met an event that it cannot be rendered with.

    template: its source.  variable: what was missing or unfit, as far as it is known ("" otherwise).
    """

    def __init__(self, template: str, reason: str, variable: str = "") -> None:
        self.template, self.reason, self.variable = template, reason, variable
        shown = template if len(template) <= 80 else template[:79] + "…"
        super().__init__(f"template {shown!r} cannot be rendered: {reason}")


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables that a template at one place of a file may name."""

    variables: Mapping[str, Allowed]
    place: str = "here"  # for messages: "in `emit`"

    def without(self, name: str, place: str) -> Scope:
        """The same scope with one variable less."""
        return Scope({known: allowed for known, allowed in self.variables.items() if known != name}, place)


def action_scope(vars_: Iterable[str], steps: Iterable[str]) -> Scope:
    """What templates of actions may name; `steps`: the earlier steps that have a name."""
    return Scope(
        {
            "event": None, "events": None, "trigger": frozenset(TRIGGER), "vars": frozenset(vars_),
            "steps": frozenset(steps), "secrets": None,
        }
    )  # fmt: skip


WEBHOOK_SCOPE = Scope({"body": None, "headers": None}, "in the `event` of a webhook")
SENSOR_SCOPE = Scope({"body": None, "topic": None}, "in the `event` of a sensor")
SECRETS_SCOPE = Scope({"secrets": None}, "in settings")


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template.  Equal by its source.

    expression: it is exactly one `{{ … }}`, so that it can keep its JSON kind.  secrets: the names it refers to.
    """

    source: str
    expression: bool = field(compare=False)
    secrets: frozenset[str] = field(compare=False)
    _compiled: CompiledTemplate | None = field(
        compare=False, repr=False
    )  # None: plain text, without anything to render

    def text(self, variables: Mapping[str, Any]) -> str:
        """Rendered as text.  Raises RenderError."""
        found = self.value(variables)
        if isinstance(found, str):
            return found
        if found is None or isinstance(found, bool):
            return {None: "", True: "true", False: "false"}[found]
        if isinstance(found, int | float):
            return str(found)
        return str(_guarded(self.source, lambda: sandbox().filters["tojson"](found)))

    def value(self, variables: Mapping[str, Any]) -> Any:
        """The JSON value of a single expression, else the text.  Raises RenderError."""
        if self._compiled is None:
            return self.source
        return _guarded(self.source, lambda: self._render(variables))

    def clear(self, lookup: Lookup) -> str:
        """For settings whose only variables are secrets: the text with their values.  Raises UnknownSecretError."""
        return str(reveal(self.text({"secrets": Secrets("")}), "", lookup))

    def _render(self, variables: Mapping[str, Any]) -> Any:
        compiled = self._compiled
        assert compiled is not None  # noqa: S101 -- `value` has asked
        context = compiled.new_context({**variables, STEPS: [MAX_STEPS]})
        pieces: list[str] = []
        size = 0
        for piece in compiled.root_render_func(context):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise LimitError(f"makes more than {MAX_OUTPUT} characters")
            pieces.append(piece)
        return plain(context.vars[_RESULT]) if self.expression else "".join(pieces)


class Secrets(dict[str, str]):
    """`secrets` inside a template: every name is a placeholder."""

    def __init__(self, nonce: str) -> None:
        super().__init__()
        self._nonce = nonce

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and NAME.match(name) is not None

    def __getitem__(self, name: str) -> str:
        return placeholder(name, self._nonce)


def compile_template(source: str, scope: Scope) -> Template:
    """Checked and compiled.  Raises TemplateError for whatever can be known to be wrong without an event."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"a template of {len(source)} characters; at most {MAX_SOURCE} are allowed")
    if not any(mark in source for mark in ("{{", "{%", "{#")):
        return Template(source, False, frozenset(), None)
    tree = _parse(source)
    if reason := forbidden(tree):
        raise TemplateError(reason)
    _check_filters(tree)
    _check_names(tree, scope)
    secrets = _check_secrets(tree)
    expression = _single_expression(tree)
    if expression is not None:
        tree = nodes.Template([nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)], lineno=1)
    return Template(source, expression is not None, secrets, _compile(tree))


def _parse(source: str) -> nodes.Template:
    try:
        return sandbox().parse(source)
    except TemplateSyntaxError as error:
        where = f" in line {error.lineno} of the template" if error.lineno > 1 else ""
        raise TemplateError(f"not a valid template: {error.message}{where}") from None
    except RecursionError:
        raise TemplateError("nested too deeply") from None


def _compile(tree: nodes.Template) -> CompiledTemplate:
    try:
        return sandbox().from_string(bound(tree))
    except TemplateSyntaxError as error:
        raise TemplateError(f"not a valid template: {error.message}") from None
    except (RecursionError, SyntaxError, MemoryError):  # Python's own compiler refuses what is nested too deeply
        raise TemplateError("nested too deeply") from None


def _check_filters(tree: nodes.Template) -> None:
    for kind, node_type, known in (("filter", nodes.Filter, sandbox().filters), ("test", nodes.Test, sandbox().tests)):
        for node in tree.find_all(node_type):
            name = str(node.name)
            if name not in known:
                raise TemplateError(f"unknown {kind} `{name}`", did_you_mean(name, (n for n in known if n.isalpha())))


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _check_names(tree: nodes.Template, scope: Scope) -> None:
    for name in sorted(meta.find_undeclared_variables(tree)):
        if name not in scope.variables and name not in sandbox().globals:
            raise TemplateError(f"there is no variable `{name}` {scope.place}", did_you_mean(name, scope.variables))
    for variable, attribute, plain_dot in _accesses(tree):
        allowed = scope.variables.get(variable)
        if isinstance(attribute, str) and variable in scope.variables and (plain_dot or allowed is not None):
            _check_attribute(variable, attribute, allowed)


def _accesses(tree: nodes.Template) -> list[tuple[str, object, bool]]:
    """Every `variable.attribute` and `variable["attribute"]` (attribute None: computed), and whether it has the dot."""
    found: list[tuple[str, object, bool]] = []
    for node in tree.find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name):
            found.append((node.node.name, node.attr, True))
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.node, nodes.Name):
            found.append((item.node.name, item.arg.value if isinstance(item.arg, nodes.Const) else None, False))
    return found


def _check_attribute(variable: str, attribute: str, allowed: Allowed) -> None:
    if variable == "event" and (wrong := unknown_attribute(attribute)) is not None:
        raise TemplateError(f"an event has no `{attribute}`", wrong)
    if variable == "events":
        raise TemplateError(
            f"`events` is a list and has no `{attribute}`", "write e.g. `events[0].subject`, or use `event`"
        )
    if allowed is None or attribute in allowed or attribute in ("items", "keys", "values", "get"):
        return
    if variable == "steps":
        raise TemplateError(
            f"no earlier step is named `{attribute}`", did_you_mean(attribute, allowed) or "give the step a `name`"
        )
    hint = did_you_mean(attribute, allowed) or (f"define it under `{variable}:`" if variable == "vars" else "")
    raise TemplateError(f"`{variable}` has no `{attribute}`", hint)


def unknown_attribute(name: str) -> str | None:
    """None where an event may have this attribute; else a hint.

    An extension may have any name in lower case that is not nearly that of a standard attribute.
    """
    if name in ATTRIBUTES or name in EXTENSIONS:
        return None
    hint = did_you_mean(name, ATTRIBUTES)
    if not _EXTENSION.match(name):
        return hint if hint.startswith("did") else f"content of an event stands under `data`: `data.{name}`"
    return hint if hint.startswith("did") else None


def _check_secrets(tree: nodes.Template) -> frozenset[str]:
    """A secret may only be inserted as it is: whatever alters its placeholder could not be revealed any more."""
    names = [attribute for variable, attribute, _ in _accesses(tree) if variable == "secrets"]
    if sum(1 for name in tree.find_all(nodes.Name) if name.name == "secrets") != len(names):
        raise TemplateError("`secrets` as a whole cannot be used", "name one: `{{ secrets.NAME }}`")
    inserted = 0
    for output in tree.find_all(nodes.Output):
        inserted += sum(_is_secret(node) for node in output.nodes)
    for chain in tree.find_all(nodes.Concat):
        inserted += sum(_is_secret(node) for node in chain.nodes)
    for name in names:
        if not isinstance(name, str) or not NAME.match(name):
            raise TemplateError("a secret is named by letters, digits and _", "write `{{ secrets.NAME }}`")
        if inserted != len(names):
            hint = "write `{{ secrets." + name + " }}`, without filters"
            raise TemplateError(f"secret `{name}` can only be inserted as it is", hint)
    return frozenset(str(name) for name in names)


def _is_secret(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Getattr | nodes.Getitem)
        and isinstance(node.node, nodes.Name)
        and node.node.name == "secrets"
    )


def _guarded(source: str, render: Any) -> Any:
    """Whatever an event makes go wrong inside a template becomes a RenderError."""
    try:
        return render()
    except UndefinedError as error:
        raise _missing(source, error) from None
    except (LimitError, JinjaError) as error:
        raise RenderError(source, error.message or "not allowed") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise RenderError(source, f"{type(error).__name__}: {error}") from None


def _missing(source: str, error: UndefinedError) -> RenderError:
    name = re.search(r"has no (?:attribute|element) '?([^']+?)'?$|^'([^']+)' is undefined", error.message or "")
    attribute = (name[1] or name[2]) if name else ""
    path = re.search(rf"[A-Za-z_][\w.]*\.{re.escape(attribute)}\b", source) if attribute else None
    variable = path[0] if path else attribute
    return RenderError(source, f"`{variable}` is missing in this event" if variable else str(error.message), variable)


Json: TypeAlias = Any


def render_json(tree: Json, variables: Mapping[str, Any]) -> Json:
    """A tree whose leaves may be templates, rendered; single expressions keep their kind.  Raises RenderError."""
    if isinstance(tree, Template):
        return tree.value(variables)
    if isinstance(tree, Mapping):
        return {key: render_json(item, variables) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [render_json(item, variables) for item in tree]
    return tree
