"""The Jinja2 environment in which templates of rules run: no statements, no side effects, bounded in time and memory.

Jinja's own sandbox stops access to Python's internals; it does not stop `'a' * 10**8`, nested loops or `center(10**9)`.
So: a list of the syntax, filters and methods that are allowed; results of `*`, `**`, `+`, `~` and `%` are measured
before they are made; loops share one budget of steps per rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
from jinja2 import Environment, StrictUndefined, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 16 << 10  # characters of a template
MAX_OUTPUT = 256 << 10  # characters of a rendering, and of every text on the way to it
MAX_ITEMS = 10_000  # elements of a list that is made by a template
MAX_STEPS = 20_000  # turns of all loops of one rendering
MAX_BITS = 1_024  # of an integer result

STEPS = "«steps»"  # the budget's place in the context; no name of a template can be spelt so
_BOUND = "«bound»"
_JOIN = "«join»"

_SYNTAX: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Compare, nodes.Operand, nodes.And,
    nodes.Or, nodes.Not,
    nodes.CondExpr, nodes.BinExpr, nodes.UnaryExpr, nodes.Concat, nodes.List, nodes.Dict, nodes.Pair, nodes.Tuple,
    nodes.If, nodes.For,
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    "abs capitalize count d default dictsort escape e first float int items last length list lower map max min reject"
    " rejectattr reverse select selectattr sort string title trim truncate unique upper urlencode wordcount"
)
_TESTS = _words(
    "boolean defined divisibleby eq equalto even false float ge greaterthan gt in integer iterable le lessthan lower lt"
    " mapping ne none number odd sequence string true undefined upper == != < <= > >="
)
_SPECIAL = _words("self super caller varargs kwargs")  # Jinja's own names, which reach into the template
_METHODS: dict[type, frozenset[str]] = {
    dict: _words("get items keys values"),
    str: _words(
        "capitalize count endswith find isdigit lower lstrip removeprefix removesuffix rstrip split splitlines"
        " startswith strip title upper"
    ),
}


class LimitError(SecurityError):
    """A rendering asked for more than a template may use."""


class Sandbox(ImmutableSandboxedEnvironment):
    """See the module's text."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False, cache_size=0)
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {"replace": _replace, "join": _join, "round": _round, "sum": _sum, "tojson": _tojson}
        self.filters |= {_BOUND: _bounded, _JOIN: _concatenated}
        self.tests = {name: self.tests[name] for name in _TESTS}
        self.globals = {"range": _range}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of an event wins over a method of Python's: `event.data.items` is the field."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, dict | str) and attribute in _METHODS[dict if isinstance(obj, dict) else str]:
            return getattr(obj, attribute)
        if isinstance(obj, dict | list | str | int | float | None):
            return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_callable(self, obj: Any) -> bool:
        """`range`, and the listed methods of texts and mappings."""
        owner = getattr(obj, "__self__", None)
        return obj is _range or getattr(obj, "__name__", "") in _METHODS.get(type(owner), frozenset())

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, measured first.  Raises LimitError."""
        if operator == "%" and isinstance(left, str):
            raise LimitError("`%` works on numbers only; write values with {{ … }}")
        if operator == "*":
            _check_product(left, right)
        if operator == "**":
            _check_power(left, right)
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _check_size(len(left) + len(right), text=isinstance(left, str))
        return super().call_binop(context, operator, left, right)


@cache
def sandbox() -> Sandbox:
    """The one environment; it is immutable in use."""
    return Sandbox()


def forbidden(every: Iterable[nodes.Node]) -> str:
    """What of a template's nodes is outside the allowed syntax, in words; "" where all is well."""
    for node in every:
        if not isinstance(node, _SYNTAX):
            name = type(node).__name__.lower()
            return (
                f"`{{% {'set' if name.startswith('assign') else name} %}}` cannot be used here; only `if` and `for` can"
            )
        if isinstance(node, nodes.Name) and node.name in _SPECIAL:
            return f"there is no variable `{node.name}` here"
        if isinstance(node, nodes.For) and node.recursive:
            return "a loop cannot be `recursive`"
    return ""


def bound(tree: nodes.Template) -> nodes.Template:
    """The same template whose loops count their turns and whose `~` is measured."""
    found: nodes.Template = _Bounding().visit(tree)
    found.set_environment(sandbox())
    return found


class _Bounding(NodeTransformer):
    """Wraps what loops go over, and joins of text, into filters that keep count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _BOUND, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, _JOIN, [], [], None, None, lineno=node.lineno)


def _check_size(size: int, *, text: bool) -> None:
    most, things = (MAX_OUTPUT, "characters") if text else (MAX_ITEMS, "elements")
    if size > most:
        raise LimitError(f"makes {size} {things}; at most {most} are allowed")


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple) and isinstance(other, int):
            _check_size(len(one) * max(0, other), text=isinstance(one, str))
            return
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        raise LimitError(f"a product of more than {MAX_BITS} bits")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(1, right) > MAX_BITS:
        raise LimitError(f"a power of more than {MAX_BITS} bits")


def _range(*args: int) -> range:
    """As Python's, of at most MAX_ITEMS."""
    found = range(*args)
    _check_size(len(found), text=False)
    return found


@pass_context
def _bounded(context: Context, items: Iterable[Any]) -> Iterable[Any]:
    if isinstance(items, Undefined):
        return iter(items)  # raises, with the name of what is missing
    return list(_counted(context[STEPS], items))


def _counted(budget: list[int], items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        budget[0] -= 1
        if budget[0] < 0:
            raise LimitError(f"more than {MAX_STEPS} turns of loops")
        yield item


def _concatenated(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _check_size(sum(map(len, texts)), text=True)
    return "".join(texts)


def _replace(text: object, old: str, new: str) -> str:
    """All occurrences of `old`; the result is measured first."""
    source = str(text)
    _check_size(len(source) + source.count(old) * (len(new) - len(old)), text=True)
    return source.replace(old, new)


def _join(items: Iterable[Any], separator: str = "") -> str:
    texts = [str(item) for item in items]
    _check_size(sum(map(len, texts)) + len(separator) * len(texts), text=True)
    return separator.join(texts)


def _round(number: float, precision: int = 0) -> float:
    if not -15 <= precision <= 15:
        raise LimitError("a precision between -15 and 15 is needed")
    return round(number, precision)


@pass_environment
def _sum(environment: Environment, items: Iterable[Any], attribute: str | None = None) -> Any:
    """Of numbers only: lists that are added up grow with the square of their number."""
    found = items if attribute is None else map(make_attrgetter(environment, attribute), items)
    return sum(found, start=0)


def _tojson(value: Any) -> str:
    return msgspec.json.encode(plain(value)).decode()


def plain(value: Any) -> Any:
    """A copy made of JSON's own kinds.  Raises the error of an undefined part, LimitError, TypeError."""
    return _copy(value, [MAX_OUTPUT])


def _copy(value: Any, budget: list[int]) -> Any:
    budget[0] -= len(value) if isinstance(value, str) else 1
    if budget[0] < 0:
        raise LimitError(f"more than {MAX_OUTPUT} characters and values")
    if isinstance(value, Undefined):
        str(value)  # raises, with the name of what is missing
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, dict):
        return {_key(key): _copy(item, budget) for key, item in value.items()}
    if isinstance(value, list | tuple | range) or type(value) in _VIEWS:
        return [_copy(item, budget) for item in value]
    raise TypeError(f"{type(value).__name__} is no JSON value; call or convert it")


_VIEWS: frozenset[Callable[..., Any]] = frozenset({type({}.keys()), type({}.values()), type({}.items())})


def _finite(value: float) -> float:
    if value != value or value in (float("inf"), float("-inf")):
        raise TypeError(f"{value} is no JSON number")
    return value


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key {key!r} of a mapping must be text")
    return key
