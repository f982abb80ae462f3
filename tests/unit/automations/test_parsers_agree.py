"""libyaml and ruamel.yaml give the same values, positions and problems: rules are the same whichever reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.automations.documents import Document, read
from penstock.automations.problems import Problem

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
ROOT = Path(__file__).parents[3]

INDENTS = st.sampled_from(["", "", " ", "  ", "  ", "    ", "\t"])
PLAIN = (
    "a b 1 -1 .5 0x1f 1e3 .nan ~ null true on no 12:30 a:b a::b :a ::a -a ?a a? a#b %a @a `a !!str !a !!int ! &x &y *x"
    " *y << = x,y a]b a}b {} [] {a} {a:1} {a:b} {a:} {:a} [a:b] [a,b:c] [?a] {?a:b} {a?:b} [-a] [-] {&x a: *x} | > |-"
    " >+ |2 >1- --- ... # >#"
)
BLANKS = (
    '{a: b, c: [d, e]};{"a":1};{"a":"b","c":{}};{\'a\':b};[a, b, ];{a, b: c, };{a: , b: };[a b: c];{{ x }};{% x %}'
    ";a b;a: b;a # no;é;😀;x # y;- - a;? a;? [a]: b;a:\tb;a\t# c;|-  # c;--- a;--- |;# c; ;*x : 1;&a b: c;'';'it''s'"
    ';"d";"a\\nb";"\\u00e9";"\\/";"\\ud83d\\ude00";"a\\\n  b";\'a\n\n  b\''
)
ATOMS = st.sampled_from([*PLAIN.split(), *BLANKS.split(";")])
STARTS = st.sampled_from(
    ["", "", "- ", "- - ", "a: ", "b: ", "k:", "? ", ": ", "-", "'k': ", '"k": ', "x y: ", "&x ", "!!str ", "!a "]
)
LINES = st.tuples(INDENTS, STARTS, st.sampled_from(["", "", "c: ", "- ", "&y ", "&x\n", "!!str "]), ATOMS).map("".join)
ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", "\r"])
TEXTS = st.tuples(st.lists(LINES, max_size=7), ENDS).map(lambda found: found[1].join([*found[0], ""]))


def told(found: tuple[Document | None, list[Problem]]) -> Any:
    """Everything that is known of a text: kinds and values, both positions of every path, what is spoiled, problems."""
    document, problems = found
    if document is None:
        return None, problems
    places = [
        (path, document.position(path), document.position(path, at="key"), document.is_spoiled(path))
        for path in document.paths()
    ]
    return json.dumps(document.value), places, problems


def by_libyaml(text: str) -> Any:
    return told(read("f.yaml", text))


def by_ruamel(text: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "__with_libyaml__", False)
        return told(read("f.yaml", text))


def texts_of_the_repository() -> list[str]:
    found = [path.read_text() for part in ("examples", "docs", "deploy") for path in (ROOT / part).rglob("*.y*ml")]
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        found += re.findall(r"```ya?ml\n(.*?)```", path.read_text(), re.DOTALL)
    for path in ROOT.glob("tests/**/*.py"):
        found += re.findall(r'"""\\?\n?(.*?)"""', path.read_text(), re.DOTALL)
    return found


def test_both_read_every_text_of_this_repository_alike() -> None:
    texts = texts_of_the_repository()
    assert len(texts) > 100
    different = [text for text in texts if by_libyaml(text) != by_ruamel(text)]
    assert different == []


@settings(PATIENT, max_examples=1_000)
@given(TEXTS)
def test_both_read_generated_texts_alike(text: str) -> None:
    assert by_libyaml(text) == by_ruamel(text)


@PATIENT
@example("!:!")
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,.~ \n\r\t0\x85\u2028\ufeffé\U0001f600\x01\\", max_size=60))
def test_both_read_any_characters_alike(text: str) -> None:
    assert by_libyaml(text) == by_ruamel(text)
