"""From the source of a template to a compiled one: what must be wrong whatever the event is refused here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, TypeVar

from jinja2 import meta, nodes
from jinja2.environment import Template as CompiledTemplate
from jinja2.exceptions import TemplateSyntaxError

from penstock.automations.problems import did_you_mean
from penstock.automations.sandbox import MAX_SOURCE, bound, forbidden, sandbox
from penstock.automations.scopes import Allowed, Scope, unknown_attribute
from penstock.automations.secrets import NAME
from penstock.automations.templates import RESULT, Template, TemplateError

N = TypeVar("N", bound=nodes.Node)
Nodes: TypeAlias = tuple[nodes.Node, ...]  # of one template, in their order

# An expression without quotes and braces of its own, and without Jinja's marks that eat blanks.
_BLOCK = re.compile(r"(\{\{(?![-+])[^{}'\"]*(?<![-+])\}\})")
_JINJA = re.compile(r"\{[{%#]|\r")  # what Jinja does not take as it is


def compile_template(source: str, scope: Scope) -> Template:
    """Checked and compiled.  Raises TemplateError for whatever can be known to be wrong without an event."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"a template of {len(source)} characters; at most {MAX_SOURCE} are allowed")
    if not any(mark in source for mark in ("{{", "{%", "{#")):
        return Template(source, False, frozenset(), None)
    return _joined(source, scope) or compile_whole(source, scope)


def compile_whole(source: str, scope: Scope, *, part: bool = False) -> Template:
    """Compiled in one piece.  part: it is rendered amid a text, and keeps no JSON kind.  Raises TemplateError."""
    analysed = _analysed(source, part)
    if analysed.error is not None:
        raise TemplateError(*analysed.error)
    _check_names(analysed, scope)
    if analysed.secrets_error is not None:
        raise TemplateError(*analysed.secrets_error)
    return analysed.template


def _joined(source: str, scope: Scope) -> Template | None:
    """Made of the expressions in it, which other templates have too; None: it must be looked at as a whole.

    Ten thousand rules have ten thousand texts, and few expressions in them: compiling each text takes a millisecond.
    """
    pieces = _BLOCK.split(source.removesuffix("\n"))
    texts, blocks = pieces[::2], pieces[1::2]
    if not any(texts) or _JINJA.search("\0".join(texts)) or any(text.endswith("{") for text in texts[:-1]):
        return None
    parts: list[str | CompiledTemplate] = [texts[0]]
    secrets: frozenset[str] = frozenset()
    for block, text in zip(blocks, texts[1:], strict=True):
        try:
            found = compile_whole(block, scope, part=True)
        except TemplateError:  # what is wrong is told of the whole
            return None
        parts += [*(found.parts or ()), text]
        secrets |= found.secrets
    return Template(source, False, secrets, tuple(part for part in parts if part != "")) if blocks else None


@dataclass(frozen=True, slots=True)
class _Analysed:
    """What a template is, wherever it stands. errors: reason and hint."""

    template: Template
    variables: tuple[str, ...] = ()
    accesses: tuple[tuple[str, object, bool], ...] = ()
    error: tuple[str, str] | None = None
    secrets_error: tuple[str, str] | None = None  # told after a misspelt variable, which it may be due to


@lru_cache(maxsize=4096)
def _analysed(source: str, part: bool) -> _Analysed:
    """Compiling takes a millisecond, and rules repeat each other's templates.  part: it is rendered amid a text."""
    nothing = Template(source, False, frozenset(), None)
    try:
        tree = _parse(source)
        every = tuple(tree.find_all(nodes.Node))
        _check_syntax(every)
        variables, accesses = tuple(sorted(meta.find_undeclared_variables(tree))), tuple(_accesses(every))
        try:
            secrets, secrets_error = _check_secrets(every), None
        except TemplateError as error:
            secrets, secrets_error = frozenset(), (error.reason, error.hint)
        expression = None if part else _single_expression(tree)
        if expression is not None:
            tree = nodes.Template([nodes.Assign(nodes.Name(RESULT, "store"), expression, lineno=1)], lineno=1)
        template = Template(source, expression is not None, secrets, (_compile(tree),))
        return _Analysed(template, variables, accesses, None, secrets_error)
    except TemplateError as error:
        return _Analysed(nothing, error=(error.reason, error.hint))
    except RecursionError:  # a chain of thousands of operators parses flat and is walked deep
        return _Analysed(nothing, error=("nested too deeply", ""))


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


def _of(kind: type[N], every: Nodes) -> Iterator[N]:
    return (node for node in every if isinstance(node, kind))


def _check_syntax(every: Nodes) -> None:
    if reason := forbidden(every):
        raise TemplateError(reason)
    for kind, node_type, known in (("filter", nodes.Filter, sandbox().filters), ("test", nodes.Test, sandbox().tests)):
        for node in _of(node_type, every):
            name = str(node.name)
            if name not in known:
                raise TemplateError(f"unknown {kind} `{name}`", did_you_mean(name, (n for n in known if n.isalpha())))


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _check_names(analysed: _Analysed, scope: Scope) -> None:
    for name in analysed.variables:
        if name == "secrets" and name not in scope.variables:
            raise TemplateError(f"a secret cannot stand {scope.place}", "use it in `run` or `notify`")
        if name not in scope.variables and name not in sandbox().globals:
            raise TemplateError(f"there is no variable `{name}` {scope.place}", did_you_mean(name, scope.variables))
    for variable, attribute, plain_dot in analysed.accesses:
        allowed = scope.variables.get(variable)
        if isinstance(attribute, str) and variable in scope.variables and (plain_dot or allowed is not None):
            check_attribute(variable, attribute, allowed)


def check_attribute(variable: str, attribute: str, allowed: Allowed) -> None:
    """Raises TemplateError where a variable cannot have this attribute; allowed: those it has, None: any."""
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


def _accesses(every: Nodes) -> list[tuple[str, object, bool]]:
    """Every `variable.attribute` and `variable["attribute"]` (attribute None: computed), and whether it has the dot."""
    found: list[tuple[str, object, bool]] = []
    for node in _of(nodes.Getattr, every):
        if isinstance(node.node, nodes.Name):
            found.append((node.node.name, node.attr, True))
    for item in _of(nodes.Getitem, every):
        if isinstance(item.node, nodes.Name):
            found.append((item.node.name, item.arg.value if isinstance(item.arg, nodes.Const) else None, False))
    return found


def _check_secrets(every: Nodes) -> frozenset[str]:
    """A secret may only be inserted as it is: whatever alters its placeholder could not be revealed any more."""
    names = [attribute for variable, attribute, _ in _accesses(every) if variable == "secrets"]
    if sum(1 for name in _of(nodes.Name, every) if name.name == "secrets") != len(names):
        raise TemplateError("`secrets` as a whole cannot be used", "name one: `{{ secrets.NAME }}`")
    inserted = 0
    for output in _of(nodes.Output, every):
        inserted += sum(_is_secret(node) for node in output.nodes)
    for chain in _of(nodes.Concat, every):
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
