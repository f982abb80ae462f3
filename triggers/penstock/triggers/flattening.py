"""From an event to the leaves at the paths that patterns name, each with the array elements it lies in.

A key with dots equals nesting, in events as in patterns: the path is the keys joined by dots. Leaves are scalars; an
object, `{}` and `[]` are no leaves. Elements of nested arrays belong to the path of the outermost one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from penstock.triggers.operators import Token

OTHER = Token("a value that no JSON has")
MAX_ARRAYS = 512  # arrays inside arrays; no JSON decoder in use reads deeper ones


class Element:
    """One element of an array of two or more, where a choice is made.

    parent: the element of the outer array it lies in, or None.  array: identity of the array.
    """

    __slots__ = ("array", "parent")

    def __init__(self, parent: Element | None, array: int) -> None:
        self.parent, self.array = parent, array


class Both:
    """The values of a key that an object has more than once; each of them counts."""

    __slots__ = ("values",)

    def __init__(self, values: list[object]) -> None:
        self.values = values


Leaves: TypeAlias = dict[str, list[tuple[object, Element | None]]]
Trie: TypeAlias = dict[str, "Node"]
_SCALARS = frozenset((str, int, float, bool, type(None)))


class Node:
    """A place in the tree of named paths: `path` is set where a path ends; `below` by the next key, dots included."""

    __slots__ = ("below", "path")

    def __init__(self) -> None:
        self.path: str | None = None
        self.below: Trie = {}


def tree(paths: Iterable[str]) -> Node:
    """The tree of the paths.  Every way to cut a path into keys leads to its end."""
    root = Node()
    places: dict[str, Node] = {}
    for path in paths:
        keys = path.split(".")
        nodes = [root]
        for end in range(1, len(keys) + 1):
            nodes.append(places.setdefault(".".join(keys[:end]), Node()))
        nodes[-1].path = path
        for start, node in enumerate(nodes[:-1]):
            for end in range(start + 1, len(keys) + 1):
                node.below[".".join(keys[start:end])] = nodes[end]
    return root


def flatten(event: object, root: Node) -> Leaves:
    """The leaves of an event at the paths of the tree; an event that is no object has none.  Never raises."""
    found: Leaves = {}
    stack: list[tuple[object, Node, Element | None, int]] = (
        [(event, root, None, 0)] if isinstance(event, Mapping) else []
    )
    arrays = 0
    while stack:
        value, node, element, depth = stack.pop()
        if type(value) in _SCALARS:
            if node.path is not None:
                found.setdefault(node.path, []).append((value, element))
        elif type(value) is dict or isinstance(value, Mapping):
            if node.below:
                stack += [(item, below, element, depth) for item, below in _named(value, node.below)]
        elif isinstance(value, list | tuple):
            arrays += 1
            if depth < MAX_ARRAYS:
                stack += _elements(value, node, element, arrays, depth + 1)
        elif isinstance(value, Both):
            stack.extend((item, node, element, depth) for item in value.values)
        elif node.path is not None:
            found.setdefault(node.path, []).append((_plain(value), element))
    return found


def _named(content: Mapping[object, object], below: Trie) -> list[tuple[object, Node]]:
    """What the object holds under the keys looked for; walks the shorter of the two."""
    if len(content) < len(below):
        return [(item, below[key]) for key, item in content.items() if isinstance(key, str) and key in below]
    return [(content[name], node) for name, node in below.items() if name in content]


def _elements(
    values: list[object] | tuple[object, ...], node: Node, element: Element | None, array: int, depth: int
) -> list[tuple[object, Node, Element | None, int]]:
    """Scalars belong to the path whatever element holds them; only objects and arrays are a choice."""
    single = len(values) == 1
    return [
        (value, node, element if single or type(value) in _SCALARS else Element(element, array), depth)
        for value in values
    ]


def _plain(value: object) -> object:
    """A scalar of an odd Python type as the JSON scalar it stands for; what stands for none is present, no more."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return OTHER
