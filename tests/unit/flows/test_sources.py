"""Code that changed under a run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tests.support.journals import Bodies, Kept

from penstock.flows import CodeChangedError, Flow, flow, task
from penstock.flows.options import OnChangedCode
from penstock.flows.sources import Past, RecordedCall, differs, source_digest

CODE = "{decorator}\ndef work(a: int) -> int:\n{doc}\n    {body}\n"


def made(body: str, doc: str = "", decorator: str = "") -> Any:
    names: dict[str, Any] = {}
    exec(CODE.format(body=body, doc=doc, decorator=decorator), names)
    return names["work"]


def test_comments_docstrings_and_lines_are_no_other_code() -> None:
    plain = source_digest(made("return a + 1"))
    assert plain == source_digest(made("return a + 1  # more", doc="    '''Adds.'''", decorator="# a line"))
    assert plain == source_digest(made("return a + 1", doc='    """Adds one."""'))


@pytest.mark.parametrize(
    "body", ["return a + 2", "return a - 1", "return b + 1", "return 'a'", "return [x for x in 'b']"]
)
def test_another_body_is_other_code(body: str) -> None:
    assert source_digest(made(body)) != source_digest(made("return a + 1"))
    assert source_digest(made("return 'b'")) != source_digest(made("return 'a'"))


def test_a_digest_is_the_same_in_every_process() -> None:
    program = (
        "from penstock.flows.sources import source_digest\n"
        "def f(x): return x in {'a', 'b', 'c', 'd'} and [y for y in x]\n"
        "print(source_digest(f))"
    )
    answers = {subprocess.check_output([sys.executable, "-c", program], text=True) for _ in range(2)}
    assert len(answers) == 1


def test_digests_of_two_pythons_tell_nothing() -> None:
    assert not differs("3.11:a", "3.12:b")
    assert not differs("", "3.12:b")
    assert differs("3.12:a", "3.12:b")


bodies = Bodies()


def versions(policy: OnChangedCode) -> tuple[Flow[..., Any], Flow[..., Any]]:
    """The same flow before and after an edit: of itself, and of one of its tasks."""

    def old(name: str) -> Flow[..., Any]:
        @task(name=f"{name}-work")
        def work(a: int) -> str:
            return bodies("old work")

        @flow(name=name)
        def runs() -> list[str]:
            return [work(1), work(2)]

        return runs

    def new(name: str) -> Flow[..., Any]:
        @task(name=f"{name}-work")
        def work(a: int) -> str:
            return bodies("new work" + "")

        @flow(name=name, on_changed_code=policy)
        def runs() -> list[str]:
            return [work(1), work(3), "new"]

        return runs

    return old(f"flow-{policy}"), new(f"flow-{policy}")


def resumed(policy: OnChangedCode) -> tuple[Kept, Flow[..., Any]]:
    bodies.ran.clear()
    old, new = versions(policy)
    first = Kept()
    first.run(old)
    source = old.source
    del old
    return Kept(first.completed(), first.remembered(source)), new


def test_a_run_goes_on_with_the_new_code_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    second, new = resumed("continue")
    assert second.run(new) == ["old work", "new work", "new"]
    assert "the code of flow 'flow-continue' itself is another" in caplog.text
    assert "1 recorded call of 'flow-continue-work' is not made any more" in caplog.text


def test_a_run_begins_anew_where_its_flow_says_so() -> None:
    second, new = resumed("restart")
    assert second.run(new) == ["new work", "new work", "new"]


def test_a_run_is_refused_where_its_flow_says_so() -> None:
    second, new = resumed("refuse")
    with pytest.raises(CodeChangedError, match=r'flow .flow-refuse. itself is another.*on_changed_code="continue"'):
        second.run(new)
    assert bodies.ran == ["old work", "old work"]


def test_a_task_that_changed_or_went_is_named() -> None:
    @task(name="sources-known")
    def known() -> None: ...

    past = Past("", {"1": RecordedCall("sources-known", "x:1"), "2": RecordedCall("sources-gone", known.source)})
    assert past.changes("f", "") == ["there is no task 'sources-gone' any more"]
    changed = Past("", {"1": RecordedCall("sources-known", known.source.split(":")[0] + ":0")})
    assert changed.changes("f", "") == ["the code of 'sources-known' is another"]


def test_the_same_code_is_no_change(caplog: pytest.LogCaptureFixture) -> None:
    old, _ = versions("refuse")
    first = Kept()
    found = first.run(old)
    caplog.clear()
    assert Kept(first.completed(), first.remembered(old.source)).run(old) == found
    assert caplog.text == ""
