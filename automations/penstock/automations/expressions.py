"""The syntax of CEL expressions as a tree with positions, for what can be known to be wrong without any event.

The grammar is that of the CEL specification, without messages (`Type{…}`), which rules have no use for. Values are
calculated by the CEL library (conditions.py), never here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, TypeAlias

from penstock.events.errors import PenstockError

MAX_SOURCE = 2_000  # characters
MAX_DEPTH = 20  # of brackets, calls, choices and signs inside each other: the library's parser recurses
MAX_OPERATORS = 100
MACROS = ("all", "exists", "exists_one", "map", "filter")

Kind: TypeAlias = Literal["literal", "name", "select", "index", "call", "unary", "binary", "choice", "list", "map"]

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|//[^\n]*)+)
    |(?P<text>[bB]?[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
        |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d*\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_WORDS = {"true", "false", "null"}
_MEANT = {"and": "&&", "or": "||", "not": "!", "=": "==", "&": "&&", "|": "||", "is": "=="}


class ExpressionError(PenstockError):
    """An expression is no CEL.  reason: what is wrong, with its place.  hint: what was probably meant."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(f"{reason} ({hint})" if hint else reason)


@dataclass(frozen=True, slots=True)
class Node:
    """One part of an expression.

    start, end: its place in the source.  value: the name, operator, field or source of a literal.
    children: operands, arguments (of a method its object first), elements, keys and values in turn.
    """

    kind: Kind
    start: int
    end: int
    value: str = ""
    children: tuple[Node, ...] = ()
    method: bool = False  # of a call: it is written behind its object

    @property
    def is_macro(self) -> bool:
        """Whether it evaluates its last arguments once per element."""
        return self.kind == "call" and self.method and self.value in MACROS and len(self.children) >= 3

    def walk(self) -> Iterator[Node]:
        """Itself and all below, in the order of the source."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def parse(source: str) -> Node:
    """The tree.  Raises ExpressionError, also for what is too long or too deep."""
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"an expression of {len(source)} characters; at most {MAX_SOURCE} are allowed")
    parser = _Parser(list(_tokens(source)), len(source))
    return parser.whole()


def _tokens(source: str) -> Iterator[_Token]:
    place = 0
    while place < len(source):
        found = _TOKEN.match(source, place)
        if found is None:
            text = source[place]
            if text in "'\"":
                raise ExpressionError(f"the text that begins at character {place + 1} does not end")
            hint = f"write `{_MEANT[text]}`" if text in _MEANT else ""
            raise ExpressionError(f"`{text}` at character {place + 1} is no CEL", hint)
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found[0], place)
        place = found.end()


def bracket_depth(source: str) -> int:
    """How deep the brackets of an expression go: as deep as the library's parser recurses."""
    depth = deepest = 0
    for token in _tokens(source):
        if token.kind == "mark":
            depth += (token.text in "([{") - (token.text in ")]}")
            deepest = max(deepest, depth)
    return deepest


class _Parser:
    """Recursive descent, as deep as MAX_DEPTH."""

    def __init__(self, tokens: list[_Token], length: int) -> None:
        self._tokens, self._place, self._depth, self._operators = tokens, 0, 0, 0
        self._end = _Token("end", "", length)

    def whole(self) -> Node:
        found = self._choice()
        if self._next is not self._end:
            self._refuse("an operator")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place] if self._place < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._next
        self._place += 1
        return token

    def _skip(self, mark: str) -> bool:
        if self._next.kind == "mark" and self._next.text == mark:
            self._place += 1
            return True
        return False

    def _require(self, mark: str) -> _Token:
        token = self._next
        if not self._skip(mark):
            self._refuse(f"`{mark}`")
        return token

    def _refuse(self, wanted: str) -> NoReturn:
        token = self._next
        if token is self._end:
            raise ExpressionError(f"the expression ends where {wanted} is needed")
        hint = f"write `{_MEANT[token.text]}`" if token.text in _MEANT else ""
        raise ExpressionError(f"`{token.text}` at character {token.start + 1}, where {wanted} is needed", hint)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"nested too deeply; at most {MAX_DEPTH} levels are allowed")

    def _choice(self) -> Node:
        self._deeper()
        found = self._binary(0)
        if self._skip("?"):
            yes = self._choice()
            self._require(":")
            no = self._choice()
            found = Node("choice", found.start, no.end, "?", (found, yes, no))
        self._depth -= 1
        return found

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        found = self._binary(level + 1)
        while self._next.kind in ("mark", "name") and self._next.text in _LEVELS[level]:
            self._operators += 1
            if self._operators > MAX_OPERATORS:
                raise ExpressionError(f"more than {MAX_OPERATORS} operators")
            operator = self._take().text
            right = self._binary(level + 1)
            found = Node("binary", found.start, right.end, operator, (found, right))
        return found

    def _unary(self) -> Node:
        token = self._next
        if token.kind == "mark" and token.text in ("!", "-"):
            self._take()
            self._deeper()
            inner = self._unary()
            self._depth -= 1
            return Node("unary", token.start, inner.end, token.text, (inner,))
        return self._member()

    def _member(self) -> Node:
        found = self._primary()
        while True:
            if self._skip("."):
                name = self._name()
                if self._next.text == "(":
                    found = self._call(name, found)
                else:
                    found = Node("select", found.start, name.end, name.text, (found,))
            elif self._skip("["):
                key = self._choice()
                found = Node("index", found.start, self._require("]").end, "", (found, key))
            else:
                return found

    def _name(self) -> _Token:
        if self._next.kind != "name" or self._next.text in _WORDS or self._next.text == "in":
            self._refuse("the name of a field")
        return self._take()

    def _call(self, name: _Token, receiver: Node | None) -> Node:
        self._require("(")
        arguments, end = self._items(")")
        first = (receiver,) if receiver else ()
        start = receiver.start if receiver else name.start
        return Node("call", start, end, name.text, (*first, *arguments), receiver is not None)

    def _items(self, closing: str) -> tuple[list[Node], int]:
        items: list[Node] = []
        while self._next.text != closing or self._next.kind != "mark":
            items.append(self._choice())
            if closing == "}":
                self._require(":")
                items.append(self._choice())
            if not self._skip(",") or (closing == ")" and self._next.text == ")"):
                break
        return items, self._require(closing).end

    def _primary(self) -> Node:
        token = self._next
        if token.kind in ("text", "number") or (token.kind == "name" and token.text in _WORDS):
            self._take()
            return Node("literal", token.start, token.end, token.text)
        if token.kind == "name" and token.text != "in":
            self._take()
            if self._next.text == "(" and self._next.kind == "mark":
                return self._call(token, None)
            return Node("name", token.start, token.end, token.text)
        if token.kind == "mark" and token.text in ("(", "[", "{"):
            return self._bracket()
        return self._refuse("a value")

    def _bracket(self) -> Node:
        opening = self._take()
        if opening.text == "(":
            inner = self._choice()
            return replace(inner, start=opening.start, end=self._require(")").end)
        items, end = self._items("]" if opening.text == "[" else "}")
        return Node("list" if opening.text == "[" else "map", opening.start, end, "", tuple(items))
