"""`if`: what holds, what does not, and why; whatever an event holds, a condition never crashes."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.automations.conditions import CelCondition, ConditionError, compile_condition
from penstock.automations.expressions import MAX_DEPTH, MAX_OPERATORS, MAX_SOURCE
from penstock.automations.scopes import condition_scope
from penstock.triggers.conditions import Cause, Context, Verdict
from penstock.triggers.evidence import Evidence

SCOPE = condition_scope(["limit"])
DATA: dict[str, Any] = {
    "celsius": 4.5, "n": 9, "text": "xä", "nothing": None, "huge": 2**70, "wide": 2**63, "list": [1, 2, 3], "ok": True,
    "items": [{"q": 1}, {"q": 2.5}],
}  # fmt: skip
EVENT = {"id": "1", "type": "t", "subject": "truck/7", "time": "2026-03-01T10:00:00Z", "data": DATA}


def condition(source: str) -> CelCondition:
    return compile_condition(source, SCOPE)


def judged(source: str, data: Any = DATA) -> Verdict:
    event = {**EVENT, "data": data}
    return condition(source).judge({"event": event, "events": [event], "trigger": {"key": None}, "vars": {"limit": 8}})


@pytest.mark.parametrize(
    "source",
    [
        "event.data.n > vars.limit && (event.data.text == 'a' || event.subject == 'truck/7')",
        "!(event.data.n < 3)",
        "event.data.n in [1, 9]",
        "event.data.n == 9.0",
        "event.data.celsius < event.data.n",
        "has(event.data.nothing) && !has(event.data.missing)",
        "event.data.nothing == null",
        "event['data']['n'] == 9",
        "events[0].data.n == 9 && size(events) == 1",
        "events.exists(e, e.data.n == 9)",
        "event.data.items.all(i, i.q >= 1) && !event.data.items.all(i, i.q > 1)",
        "event.data.list.filter(x, x > 1).size() == 2",
        "event.data.list.map(x, x + 0.5)[0] == 1.5",
        "event.subject.startsWith('truck/') && event.subject.matches('^truck/[0-9]+$')",
        "event.data.text.size() == 2 && size(event.data.list) == 3",
        "(event.data.text + 'b').size() * 2 == 6",
        "event.data.ok ? event.data.n > 8 : false",
        "event.data.ok",
        "type(event.data.n) == int",
        "timestamp(event.time) + duration('90m') == timestamp('2026-03-01T11:30:00Z')",
        "timestamp(event.time).getHours('Europe/Vienna') == 11",
        "timestamp(event.time).getDayOfWeek() == 0",
        "event.data.missing == 1 || true",
        "trigger.key == null",
        "true // a remark",
    ],
)
def test_a_condition_holds(source: str) -> None:
    assert judged(source) == Verdict(True)


@pytest.mark.parametrize("celsius", [9, 9.0, 5.5])
def test_whole_numbers_and_fractions_mix_as_they_do_in_json(celsius: float) -> None:
    data = {"celsius": celsius}
    assert judged("event.data.celsius * 2 > 10", data).holds
    assert judged("event.data.celsius * 2.0 > 10", data).holds
    assert judged("(event.data.celsius + 1) * 2 - 0.5 > 10 && -event.data.celsius < 0", data).holds
    assert not judged("event.data.celsius * 2 > 100", data).holds


@given(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9).filter(lambda x: x != 0), st.sampled_from("+-*/"))
def test_mixed_arithmetic_is_that_of_python(whole: int, fraction: float, operator: str) -> None:
    expected = {"+": whole + fraction, "-": whole - fraction, "*": whole * fraction, "/": whole / fraction}[operator]
    assert judged(f"event.data.a {operator} event.data.b == event.data.c", {"a": whole, "b": fraction, "c": expected})


@given(st.integers(-50, 50), st.integers(-50, 50).filter(bool))
def test_whole_numbers_divide_alike_whether_or_not_a_fraction_stands_beside_them(a: int, b: int) -> None:
    data = {"a": a, "b": b}
    for operator in "/%":
        plain = f"event.data.a {operator} event.data.b"
        assert judged(f"{plain} == ({plain} + 0.0 * 1) - 0.0", data).holds


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("event.data.missing > 1", "`event.data.missing` is missing"),
        ("event.data.deep.er.still == 1", "`event.data.deep` is missing"),
        ("event.data.missing * 2.5 > 1", "`event.data.missing` is missing"),
        ("event.data.nothing.x == 1", "`event.data.nothing.x` is missing: `event.data.nothing` is null"),
        ("event.data.n.x == 1", "`event.data.n.x` is missing: `event.data.n` is the number 9"),
        ("event.data.list[7] == 1", "`event.data.list[7]` is missing: there are 3 elements"),
        ("event.data.items.all(i, i.r > 1)", "`i.r` is missing"),
        ("has(event.data.missing) || event.data.gone == 1", "`event.data.gone` is missing"),
        ("event.data.text > 1", '`event.data.text` (the text "xä") and `1` (the number 1) cannot be compared by `>`'),
        ("event.data.text * 1.5 > 2", "text and a number cannot be multiplied"),
        ("event.data.n / 0 > 1", "a division by zero"),
        ("event.data.celsius / 0 > 1", "a division by zero"),
        ("event.data.n", "it is neither true nor false, but the number 9"),
        ("1 + 2", "it is neither true nor false, but a calculation"),
        ("'yes'", "it is neither true nor false, but text"),
        ("event.data.ok ? [1] : true", "it is neither true nor false, but a list"),
        ("event", "it is neither true nor false, but all of `event`"),
        ("event.data.ok && event.data.n", "`event.data.n` (the number 9) is neither true nor false"),
        ("timestamp(event.time).getHours('Nowhere') == 1", "`getHours`: no such time zone, or no time"),
        ("9223372036854775807 + event.data.n > 1", "a number is too large"),
    ],
)
def test_what_cannot_be_told_does_not_hold_and_says_why(source: str, error: str) -> None:
    assert judged(source) == Verdict(False, error)


@pytest.mark.parametrize(
    ("source", "reason", "hint"),
    [
        ("evnt.data.x > 1", "there is no variable `evnt` here", "did you mean `event`?"),
        ("event.tpye == 'x'", "an event has no `tpye`", "did you mean `type`?"),
        ("trigger.kye == 1", "`trigger` has no `kye`", "did you mean `key`?"),
        ("vars.limt > 1", "`vars` has no `limt`", "did you mean `limit`?"),
        ("vars['limt'] > 1", "`vars` has no `limt`", "did you mean `limit`?"),
        ("events.data == 1", "`events` is a list and has no `data`", "write e.g. `events[0].subject`, or use `event`"),
        ("steps.x == 1", "there is no variable `steps` in the `if` of a rule", "write the `if` at a step"),
        ("secrets.X == 'a'", "a secret cannot stand in a condition", "compare secrets in a flow"),
        ("event.data.n = 9", "`=` at character 14 is no CEL", "write `==`"),
        ("true and false", "`and` at character 6, where an operator is needed", "write `&&`"),
        ("event.data.n >", "the expression ends where a value is needed", ""),
        ("event.data.n == 'a", "the text that begins at character 17 does not end", ""),
        (" ", "the expression is empty", "write e.g. `event.data.celsius > 8`"),
        ("event.subject.startWith('x')", "there is no function `startWith`", "did you mean `startsWith`?"),
        ("event.subject.startsWith()", "`startsWith` at character 1 has 0 arguments, which does not fit", ""),
        ("event.data.list.all(1 > 2, true)", "`all` needs a list and a name", "write e.g. `list.all(x, x > 1)`"),
        (
            "event.data.list.all(event, true)",
            "`all` gives the name `event` away, which has a meaning",
            "choose another",
        ),
        ("event.subject.matches('(')", "'(' is no regular expression: unclosed group", ""),
        (
            "event.subject.matches(event.data.text)",
            "the regular expression of `matches` must be written out",
            "write it as text",
        ),
    ],
)
def test_what_can_never_work_is_refused(source: str, reason: str, hint: str) -> None:
    with pytest.raises(ConditionError) as caught:
        condition(source)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)


@pytest.mark.parametrize(
    "source",
    [
        "event.data.n == 1 ||" * (MAX_SOURCE // 10) + "true",
        "(" * MAX_DEPTH + "true" + ")" * MAX_DEPTH,
        "!" * (MAX_DEPTH + 1) + "true",
        "[" * 30 + "]" * 30 + " == []",
        " && ".join(["true"] * (MAX_OPERATORS + 2)),
        "event.subject.matches('((a{90}){90}){90}')",
        "1" + " + 1" * (MAX_DEPTH + 1) + " > 0",
    ],
)
def test_an_expression_is_bounded(source: str) -> None:
    with pytest.raises(ConditionError, match=r"allowed|more than"):
        condition(source)


@pytest.mark.parametrize(
    "source",
    [
        "!" * (MAX_DEPTH - 1) + "true",
        "(" * (MAX_DEPTH - 2) + "true" + ")" * (MAX_DEPTH - 2),
        " && ".join(["true"] * MAX_OPERATORS),
        "1" + " + 1" * (MAX_DEPTH) + " > 0",
        "size('a') + " * (MAX_DEPTH - 3) + "1 > 0",
    ],
)
def test_the_deepest_expression_fits_into_a_small_stack(source: str) -> None:
    found: list[Any] = []
    size = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(condition(source).judge({})))
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert len(found) == 1


def test_a_long_text_is_not_searched() -> None:
    source = "event.data.text.matches('a{90}b')"
    assert not judged(source, {"text": "a" * 65_536}).error
    error = "a text of more than 65536 bytes is not searched by `matches`"
    assert judged(source, {"text": "a" * 65_537}) == Verdict(False, error)
    assert judged("event.data.missing.matches('a')").error == "`event.data.missing` is missing"
    assert judged("event.data.n.matches('a')").error


def test_a_macro_does_not_go_through_more_than_it_can() -> None:
    numbers = {"list": list(range(5_000))}
    assert judged("event.data.list.map(x, x).size() > 1", numbers).error.endswith("too many to go through")
    assert judged("event.data.list.all(x, event.data.list.all(y, y == x))", numbers).error
    assert judged("event.data.list.exists(x, x == 7)", {"list": list(range(3_000))}).holds
    assert judged("size(event.data.list) == 5000", numbers).holds


def test_the_core_asks_with_its_context() -> None:
    body = b'{"id":"1","source":"/s","type":"t","data":{"n":3}}'
    cause = Cause("r", "fired", "k", 0, "d", 7)
    context = Context(cause, (Evidence(0, "/s", "1", body),), {"limit": 2})
    assert condition("event.data.n > vars.limit && trigger.value == 7 && trigger.key == 'k'").evaluate(context).holds
    assert condition("event == null && events == []").evaluate(Context(cause, (), {})).holds
    assert condition("event.data.n > 1").evaluate(Context(cause, (), {})).error == (
        "`event.data` is missing: `event` is null"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abn"), inner, max_size=3),
    max_leaves=8,
)
OPERANDS = st.sampled_from(
    [
        "event.data",
        "event.data.a",
        "event.data.a.b",
        "event.data.n",
        "event.data[0]",
        "event.data['a']",
        "1",
        "2.5",
        "-3",
        "'a'",
        "null",
        "true",
        "[1, 'a']",
        "size(event.data)",
        "events[0].data.n",
        "9223372036854775807",
        "vars.limit",
        "timestamp(event.data)",
        "duration('5m')",
        "int(event.data.n)",
        "string(event.data.n)",
        "event.data.n.size()",
    ]
)
EXPRESSIONS = st.recursive(
    OPERANDS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", ">=", "in", "&&", "||"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        st.tuples(st.sampled_from(["all", "exists", "filter", "map"]), inner).map(
            lambda parts: f"event.data.{parts[0]}(x, {parts[1]} == x)"
        ),
        inner.map(lambda part: f"!{part}"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} ? {parts[1]} : {parts[2]})"),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(EXPRESSIONS, JSON)
def test_no_expression_crashes_on_any_event(source: str, data: Any) -> None:
    try:
        found = condition(f"{source} == true")
    except ConditionError:
        return
    event = {**EVENT, "data": data}
    verdict = found.judge({"event": event, "events": [event], "vars": {"limit": 8}})
    assert isinstance(verdict.holds, bool)
    assert not (verdict.holds and verdict.error)


@given(st.text(max_size=40))
def test_no_text_crashes_the_parser(source: str) -> None:
    with contextlib.suppress(ConditionError):
        condition(source)
