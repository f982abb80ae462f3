"""`if`: CEL, compiled and checked when a rule is loaded, evaluated when a firing wants to pass.

The library calculates. Around it, this module sees to what the library leaves open: names that cannot exist, bounds
(its parser recurses, its macros know no budget), whole numbers and fractions that mix in arithmetic, the path of a
missing field, and that nothing an event holds becomes more than "it does not hold, because …".

ConditionError      an expression cannot work; refused at load
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cel

from penstock.automations.arithmetic import FUNCTIONS, MAX_TEXT, Mixing, rewritten
from penstock.automations.compiling import check_attribute
from penstock.automations.diagnosis import explain_mismatch, explain_missing, shown
from penstock.automations.documents import Document
from penstock.automations.expressions import MACROS, MAX_DEPTH, ExpressionError, Node, bracket_depth, parse
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.scopes import Scope
from penstock.automations.templates import TemplateError
from penstock.events.errors import PenstockError
from penstock.triggers.conditions import Context, Verdict

MAX_STEPS = 10_000_000  # of a macro in the worst case, by the number of values that it may look at
MAX_REPEAT = 100  # repetitions that a regular expression may count: its cost is that of the text times these

_TYPES = frozenset(["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"])
_METHODS: Mapping[str, tuple[int, ...]] = {  # the numbers of arguments, the object among them
    "size": (1,), "contains": (2,), "startsWith": (2,), "endsWith": (2,), "matches": (2,),
    "int": (1,), "uint": (1,), "double": (1,), "string": (1,), "bytes": (1,), "dyn": (1,), "type": (1,),
    "timestamp": (1,), "duration": (1,),
    "getFullYear": (1, 2), "getMonth": (1, 2), "getDate": (1, 2), "getDayOfMonth": (1, 2), "getDayOfWeek": (1, 2),
    "getDayOfYear": (1, 2), "getHours": (1, 2), "getMinutes": (1, 2), "getSeconds": (1, 2), "getMilliseconds": (1, 2),
    "all": (3,), "exists": (3,), "exists_one": (3,), "filter": (3,), "map": (3, 4), "has": (1,),
}  # fmt: skip
_BOOLEAN = frozenset(["contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one"])
_COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"])
_COUNTED = re.compile(r"\{(\d+)(?:,(\d*))?\}")


class ConditionError(PenstockError):
    """An expression cannot work.  reason: what is wrong.  hint: what was probably meant."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(f"{reason} ({hint})" if hint else reason)


@dataclass(frozen=True, slots=True)
class CelCondition:
    """A compiled `if`.  Equal by its source."""

    source: str
    names: frozenset[str] = field(compare=False)  # the variables it uses
    weight: int = field(compare=False)  # the power with which its cost grows; 0: without macros
    tree: Node = field(compare=False, repr=False)
    never: str  # what it is that can be neither true nor false; "": it can
    _plain: Any = field(compare=False, repr=False)
    _mixing: Any = field(compare=False, repr=False)  # the same with arithmetic of ours; None: it has no arithmetic

    def evaluate(self, context: Context) -> Verdict:
        """For the core, see `penstock.triggers.conditions.Condition`.  Never raises."""
        return self.judge({name: _VARIABLES[name](context) for name in self.names})

    def judge(self, variables: Mapping[str, Any]) -> Verdict:
        """Whether it holds for variables by name.  Never raises."""
        if self.never:
            return Verdict(False, f"it is neither true nor false, but {self.never}")
        used = {name: variables[name] for name in self.names if name in variables}
        if self.weight and (values := _count(used.values())) ** self.weight > MAX_STEPS:
            return Verdict(False, f"these events hold {values} values, too many to go through")
        try:
            found = self._calculate(used)
        except _Unfit as error:
            return Verdict(False, str(error))
        if isinstance(found, bool):
            return Verdict(found)
        return Verdict(False, f"it is neither true nor false, but {shown(found)}")

    def _calculate(self, variables: dict[str, Any]) -> Any:
        """Raises _Unfit."""
        mixing = Mixing()
        try:
            return self._plain.execute(cel.Context(variables=variables, functions=FUNCTIONS))
        except TypeError as error:
            if self._mixing is None:
                raise self._unfit(error, variables, mixing) from None
        except BaseException as error:
            raise self._unfit(error, variables, mixing) from None
        try:
            return self._mixing.execute(cel.Context(variables=variables, functions={**FUNCTIONS, **mixing.functions()}))
        except BaseException as error:
            raise self._unfit(error, variables, mixing) from None

    def _unfit(self, error: BaseException, variables: Mapping[str, Any], mixing: Mixing) -> BaseException:
        if isinstance(error, KeyError):
            return _Unfit(explain_missing(self.tree, self.source, variables, str(error.args[0])))
        if mixing.errors:
            return _Unfit(mixing.errors[-1])
        if isinstance(error, IndexError | TypeError):
            return _Unfit(explain_mismatch(self.tree, self.source, variables) or _first_sentence(error))
        # the library's panics are no Exceptions; whatever else is none (KeyboardInterrupt, …) is not ours to swallow
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            return _Unfit(_first_sentence(error))
        return error


class _Unfit(Exception):
    """It cannot be told for these variables; the text says why."""


_VARIABLES: Mapping[str, Any] = {
    "event": lambda context: context.event,
    "events": lambda context: context.events,
    "trigger": lambda context: context.trigger.to_mapping(),
    "vars": lambda context: dict(context.vars),
}


def compile_condition(source: str, scope: Scope) -> CelCondition:
    """Checked and compiled.  Raises ConditionError for whatever can be known to be wrong without an event."""
    if not source.strip():
        raise ConditionError("the expression is empty", "write e.g. `event.data.celsius > 8`")
    try:
        tree = parse(source)
    except ExpressionError as error:
        raise ConditionError(error.reason, error.hint) from None
    _check_calls(tree)
    names = frozenset(_check_names(tree, scope, frozenset()))
    sized, mixed = rewritten(source, tree)
    if bracket_depth(mixed or sized) > MAX_DEPTH:
        raise ConditionError(f"more than {MAX_DEPTH} calculations inside each other", "calculate in a flow")
    compiled = _compile(sized), _compile(mixed) if mixed else None
    return CelCondition(source, names, _weight(tree), tree, _not_boolean(tree), *compiled)


def compile_if(
    source: str | None, scope: Scope, document: Document, path: Path
) -> tuple[CelCondition | None, list[Problem]]:
    """A condition, and what is wrong with it; none where there is no source."""
    if source is None:
        return None, []
    try:
        found = compile_condition(source, scope)
        if not found.never:
            return found, []
        message = f"`if` is {found.never}, neither true nor false: it never holds"
        return found, [document.problem(path, message, "compare it with something", severity="warning")]
    except ConditionError as error:
        return None, [document.problem(path, error.reason, error.hint)]


def _compile(source: str) -> Any:
    try:
        return cel.compile(source)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).split("ERROR: <input>:")[-1].split("\n")[0].split(":", 2)[-1].strip()
        raise ConditionError(f"no valid CEL: {reason[:200]}") from None


def _check_calls(tree: Node) -> None:
    for node in tree.walk():
        if node.kind != "call":
            continue
        if node.value not in _METHODS:
            raise ConditionError(f"there is no function `{node.value}`", did_you_mean(node.value, _METHODS))
        if len(node.children) not in _METHODS[node.value]:
            raise ConditionError(f"`{node.value}` at character {node.start + 1} has {_arguments(node)}")
        if node.value in MACROS and (not node.method or node.children[1].kind != "name"):
            raise ConditionError(f"`{node.value}` needs a list and a name", f"write e.g. `list.{node.value}(x, x > 1)`")
        if node.value == "has" and node.children[0].kind != "select":
            raise ConditionError("`has` needs a field", "write e.g. `has(event.data.celsius)`")
        if node.value == "matches":
            _check_regex(node.children[1])


def _arguments(node: Node) -> str:
    count = len(node.children) - node.method
    return f"{count} argument{'' if count == 1 else 's'}, which does not fit"


def _check_regex(node: Node) -> None:
    """One that an event wrote could take minutes, and so could one that counts far."""
    if node.kind != "literal" or ("'" not in node.value and '"' not in node.value):
        raise ConditionError("the regular expression of `matches` must be written out", "write it as text")
    product = 1
    for low, high in _COUNTED.findall(node.value):
        product *= max(1, int(high or low))
    if product > MAX_REPEAT:
        raise ConditionError(f"a regular expression that counts to {product}; at most {MAX_REPEAT} are allowed")
    try:
        cel.evaluate(f"''.matches({node.value})")
    except (RuntimeError, ValueError, TypeError) as error:
        lines = [line for line in str(error).splitlines() if line.startswith("error:")]
        reason = lines[0].removeprefix("error: ").split(". Check")[0] if lines else "it cannot be read"
        raise ConditionError(f"{node.value} is no regular expression: {reason}") from None


def _check_names(node: Node, scope: Scope, bound: frozenset[str]) -> Iterator[str]:
    """The variables it uses; `bound`: the names that macros have given."""
    if node.is_macro:
        name = node.children[1].value
        if name in scope.variables:
            raise ConditionError(f"`{node.value}` gives the name `{name}` away, which has a meaning", "choose another")
        yield from _check_names(node.children[0], scope, bound)
        for inner in node.children[2:]:
            yield from _check_names(inner, scope, bound | {name})
        return
    if node.kind == "name" and node.value not in bound:
        yield from _check_name(node.value, scope)
    _check_attribute(node, scope, bound)
    for child in node.children:
        yield from _check_names(child, scope, bound)


def _check_name(name: str, scope: Scope) -> Iterator[str]:
    if name in scope.variables:
        yield name
    elif name == "secrets":
        raise ConditionError("a secret cannot stand in a condition", "compare secrets in a flow")
    elif name == "steps":
        raise ConditionError("there is no variable `steps` in the `if` of a rule", "write the `if` at a step")
    elif name not in _TYPES:
        raise ConditionError(f"there is no variable `{name}` here", did_you_mean(name, scope.variables))


def _check_attribute(node: Node, scope: Scope, bound: frozenset[str]) -> None:
    if node.kind not in ("select", "index") or node.children[0].kind != "name":
        return
    variable = node.children[0].value
    attribute = node.value if node.kind == "select" else text_of(node.children[1])
    if attribute is None or variable in bound or variable not in scope.variables:
        return
    if node.kind == "index" and scope.variables[variable] is None:
        return  # an extension attribute, or a place in `events`
    try:
        check_attribute(variable, attribute, scope.variables[variable])
    except TemplateError as error:
        raise ConditionError(error.reason, error.hint) from None


def text_of(node: Node) -> str | None:
    """What a plain text literal says; None for anything else."""
    found = re.fullmatch(r"'([^'\\]*)'|\"([^\"\\]*)\"", node.value) if node.kind == "literal" else None
    return (found[1] if found[1] is not None else found[2]) if found else None


def _not_boolean(node: Node) -> str:
    """What an expression is that can never be true or false, in words; "" where it can."""
    match node.kind:
        case "literal" if node.value not in ("true", "false"):
            return "null" if node.value == "null" else "text" if node.value[-1] in "'\"" else "a number"
        case "list" | "map":
            return "a list" if node.kind == "list" else "a mapping"
        case "binary" if node.value not in _COMPARISONS:
            return "a calculation"
        case "unary" if node.value == "-":
            return "a number"
        case "call" if node.value not in _BOOLEAN and node.value != "dyn":
            return f"the result of `{node.value}`"
        case "choice":
            return _not_boolean(node.children[1]) or _not_boolean(node.children[2])
        case "name":
            return f"all of `{node.value}`"
    return ""


def _weight(node: Node) -> int:
    """0 without macros; else one more than their depth, where `filter` counts twice and `map` three times: what they
    make is copied for each element."""
    deepest = _depth(node)
    return deepest + 1 if deepest else 0


def _depth(node: Node) -> int:
    below = max((_depth(child) for child in node.children), default=0)
    return below + ({"map": 2, "filter": 2}.get(node.value, 1) if node.is_macro else 0)


def _count(values: Iterable[Any]) -> int:
    """How many JSON values there are, texts counted by their length; at most a few more than could be gone through."""
    waiting, count = list(values), 0
    while waiting and count * count <= MAX_STEPS * 4:
        value = waiting.pop()
        count += 1 + (len(value) // 100 if isinstance(value, str) else 0)
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            waiting.extend(value)
    return count


def _first_sentence(error: BaseException) -> str:
    if isinstance(error, ZeroDivisionError):
        return "a division by zero"
    if isinstance(error, OverflowError):
        return "a number is too large"
    text = str(error).split("\n")[0]
    if "__too_long" in text:
        return f"a text of more than {MAX_TEXT} bytes is not searched by `matches`"
    if "Failed to Value" in text:  # arithmetic.Failed: a part of a time in a zone
        return text.split("'")[1].join("``") + ": no such time zone, or no time"
    return re.sub(r"^Function '(\w+)' error: ", r"`\1`: ", text).split(". ")[0].rstrip(".")[:200]
