"""Templates of rules: `{{ event.subject }}`, checked when a rule is loaded, rendered when it fires.

TemplateError      a template cannot work; refused at load
RenderError        it could have, but this event lacks what it names; the step fails with this text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jinja2.environment import Template as CompiledTemplate
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import UndefinedError
from jinja2.runtime import Context

from penstock.automations.sandbox import (
    MAX_OUTPUT,
    MAX_STEPS,
    STEPS,
    LimitError,
    plain,
    sandbox,
)
from penstock.automations.secrets import NAME, Lookup, placeholder, reveal
from penstock.events.errors import PenstockError

RESULT = "result"


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
class Template:
    """A compiled template.  Equal by its source.

    expression: it is exactly one `{{ … }}`, so that it can keep its JSON kind.  secrets: the names it refers to.
    parts: what is rendered one after the other; None: there is nothing to render, the source is the text.
    """

    source: str
    expression: bool = field(compare=False)
    secrets: frozenset[str] = field(compare=False)
    parts: tuple[str | CompiledTemplate, ...] | None = field(compare=False, repr=False)

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
        if self.parts is None:
            return self.source
        return _guarded(self.source, lambda: self._render(variables))

    def clear(self, lookup: Lookup) -> str:
        """For settings whose only variables are secrets: the text with their values.  Raises UnknownSecretError."""
        return str(reveal(self.text({"secrets": Secrets("")}), "", lookup))

    def _render(self, variables: Mapping[str, Any]) -> Any:
        parts = self.parts or ()
        compiled = next(part for part in parts if not isinstance(part, str))
        context = compiled.new_context({**variables, STEPS: [MAX_STEPS]})
        pieces: list[str] = []
        size = 0
        for piece in _pieces(parts, context):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise LimitError(f"makes more than {MAX_OUTPUT} characters")
            pieces.append(piece)
        return plain(context.vars[RESULT]) if self.expression else "".join(pieces)


def _pieces(parts: tuple[str | CompiledTemplate, ...], context: Context) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from part.root_render_func(context)


class Secrets(dict[str, str]):
    """`secrets` inside a template: every name is a placeholder."""

    def __init__(self, nonce: str) -> None:
        super().__init__()
        self._nonce = nonce

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and NAME.match(name) is not None

    def __getitem__(self, name: str) -> str:
        return placeholder(name, self._nonce)


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
