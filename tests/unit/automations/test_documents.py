"""YAML 1.2 with positions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations.composing import MAX_NODES
from penstock.automations.documents import MAX_TEXT, read

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy


def value(text: str) -> Any:
    document, problems = read("f.yaml", text)
    assert document is not None
    assert problems == []
    return document.value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("12:30:45", "12:30:45"),
        ("2026-03-01", "2026-03-01"),
        ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        ("1.2.3", "1.2.3"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, meant: Any) -> None:
    found = value(f"a: {text}\n")["a"]
    assert found == meant
    assert type(found) is type(meant)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert value("on: 1\n5: 2\ntrue: 3\n") == {"on": 1, "5": 2, "true": 3}


def test_every_key_and_value_has_its_position() -> None:
    document, _ = read("f.yaml", "a:\n  - b: 1\n    c: [x, yy]\n")
    assert document is not None
    assert document.position(("a", 0, "c"), at="key") == (3, 5)
    assert document.position(("a", 0, "c", 1)) == (3, 12)
    assert document.position(("a", 0)) == (2, 5)


def test_a_problem_at_a_place_that_is_not_there_stands_at_the_closest_one() -> None:
    document, _ = read("f.yaml", "a:\n  b: 1\n")
    assert document is not None
    assert str(document.problem(("a", "b", "c", 5), "no")) == "f.yaml:2:6: no"
    assert str(document.problem(("x",), "no")) == "f.yaml:1:1: no"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "key `a` stands here twice, first in line 1"),
        ("a: .nan\n", 1, 4, ".nan is no JSON value"),
        ("a: -.inf\n", 1, 4, "-.inf is no JSON value"),
        ("a: 1e999\n", 1, 4, "1e999 is larger than a JSON number may be"),
        ("a: !date x\n", 1, 4, "tag '!date' is not understood here"),
        ('a: "x\\0y"\n', 1, 4, "contains the character NUL, which cannot be stored"),
        ("a: {{ b }}\n", 1, 5, "a key must be plain text, not a list or a mapping"),
        ("a: &x [*x]\n", 1, 4, "too many or too deeply nested values, or an alias that contains itself"),
        (
            "a: [\n",
            2,
            1,
            "not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
        ("a: *.b\n", 1, 4, "`*.b` is read as a reference to another value"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document (`---`) in one file"),
    ],
)
def test_what_is_no_json_is_refused_at_its_place(text: str, line: int, column: int, message: str) -> None:
    _, problems = read("f.yaml", text)
    assert (problems[0].line, problems[0].column, problems[0].message) == (line, column, message)


def test_an_alias_may_repeat_a_value() -> None:
    assert value("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_aliases_of_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    _, problems = read("f.yaml", "\n".join(lines))
    assert problems[0].message.startswith("too many")
    assert len(problems) < 100


def test_a_file_of_any_length_is_not_read() -> None:
    document, problems = read("f.yaml", "#" * (MAX_TEXT + 1))
    assert document is None
    assert "Split it" in problems[0].message


@PATIENT
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters="\x7f"), max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(st.characters(codec="ascii", min_codepoint=32), max_size=8),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_json_is_read_as_json(found: dict[str, Any]) -> None:
    assert value(json.dumps(found)) == found


@PATIENT
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@` \n\t0", max_size=80))
def test_no_text_crashes_the_reader(text: str) -> None:
    document, problems = read("f.yaml", text)
    assert document is not None or problems


def test_levels_are_bounded_before_they_are_read() -> None:
    document, problems = read("f.yaml", "a: " + "[" * 1_000_000)
    assert document is None
    assert str(problems[0]) == "f.yaml:1:104: more than 100 lists and mappings inside each other"


def test_values_are_bounded() -> None:
    document, problems = read("f.yaml", "a: [" + "x, " * (MAX_NODES + 1) + "]")
    assert document is None
    assert problems[0].message == f"more than {MAX_NODES} values in one file"


def test_levels_are_counted_through_aliases() -> None:
    lines = ["a0: &a0 x", *(f"a{n}: &a{n} [[[[[[[[[[*a{n - 1}]]]]]]]]]]" for n in range(1, 12))]
    document, problems = read("f.yaml", "\n".join(lines))
    assert document is not None
    assert problems[0].message.startswith("too many or too deeply nested values")
    assert document.is_spoiled(("a11",))
    assert not document.is_spoiled(("a9",))


def test_an_alias_has_the_positions_of_what_it_names() -> None:
    document, _ = read("f.yaml", "a: &x {b: [1, 2]}\nc: *x\n")
    assert document is not None
    assert document.position(("c", "b", 1)) == document.position(("a", "b", 1)) == (1, 15)


def test_what_an_alias_repeats_of_something_refused_is_spoiled_too() -> None:
    document, problems = read("f.yaml", "a: &x {b: .nan}\nc: [*x]\nd: 1\n")
    assert document is not None
    assert len(problems) == 1
    assert [document.is_spoiled((key,)) for key in "acd"] == [True, True, False]


def test_nothing_stands_where_its_key_stands() -> None:
    document, _ = read("f.yaml", "a:\n  b:   # c\n")
    assert document is not None
    assert document.position(("a", "b")) == (2, 3)
