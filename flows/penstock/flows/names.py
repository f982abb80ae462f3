"""Names of flows, tasks and their calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any, TypeAlias

from penstock.flows.errors import FlowDefinitionError

LONGEST = 200  # characters
RunName: TypeAlias = str | Callable[..., str]


def default_name(fn: Callable[..., Any]) -> str:
    """The function's name with dashes for underscores."""
    return fn.__name__.strip("_").replace("_", "-")


def checked_names(given: Iterable[str], what: str) -> tuple[str, ...]:
    """A list of names as a tuple.  Raises FlowDefinitionError."""
    if isinstance(given, str):
        raise FlowDefinitionError(f'{what}={given!r}: give a list, {what}=["{given}"]')
    names = tuple(given)
    for name in names:
        if not isinstance(name, str) or not name:
            raise FlowDefinitionError(f"{what}={list(names)!r}: {name!r} is no name")
    return names


def check_run_name(template: RunName, signature: inspect.Signature) -> None:
    """Whether a template can be filled in from the parameters.  Raises FlowDefinitionError naming the field."""
    if callable(template):
        return
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise FlowDefinitionError(f"run_name={template!r}: {error}") from None
    for field in fields:
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        if name not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise FlowDefinitionError(f"run_name={template!r}: {name!r} is no parameter (there are: {known})")


def fill_in(template: RunName, arguments: Mapping[str, Any]) -> str:
    """The name of one call, at most LONGEST characters. It never fails a call: a template that does is its own name."""
    try:
        text = template(**arguments) if callable(template) else template.format_map(dict(arguments))
    except Exception as error:  # an argument's own formatting, or the user's function, may raise anything
        return f"({type(error).__name__} in run_name)"
    line = " ".join(str(text).replace("\0", " ").split())[:LONGEST]
    return line.encode("utf-8", "replace").decode()  # a lone surrogate could not be sent
