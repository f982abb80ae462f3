"""Flows found in a user's modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.flows.load import Library, load_flows

FLOW = "from penstock.flows import flow\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; modules imported from it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(project: Path, **files: str) -> None:
    for name, text in files.items():
        path = project / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def problems(library: Library) -> list[str]:
    return [str(problem) for problem in library.problems]


def test_a_path_is_known_by_the_name_of_its_file(project: Path) -> None:
    write(project, flows__reroute_a=FLOW + "@flow\ndef reroute_truck(truck: str): ...\n")
    library = load_flows(["flows/reroute_a.py"])
    assert library.flows["reroute-truck"].module == "reroute_a"
    assert library.flows["reroute-truck"].schema["required"] == ["truck"]
    assert not library.problems


def test_a_dotted_module_is_found_in_the_working_directory(project: Path) -> None:
    write(project, mine__jobs=FLOW + "@flow\ndef nightly(): ...\n")
    assert load_flows(["mine.jobs"]).flows["nightly"].module == "mine.jobs"


def test_neighbours_can_be_imported(project: Path) -> None:
    write(project, flows__uses_one=FLOW + "from near_one import X\n@flow\ndef uses(): ...\n", flows__near_one="X = 1\n")
    assert set(load_flows(["flows/uses_one.py"]).flows) == {"uses"}


def test_a_file_named_like_a_library_hides_nothing(project: Path) -> None:
    write(project, flows__email=FLOW + "@flow\ndef mails(): ...\n")
    library = load_flows(["flows/email.py"])
    assert library.flows["mails"].module == "email"
    import email

    assert "flows" not in (email.__file__ or "")


def test_two_flows_of_one_name_are_a_problem_that_names_both_places(project: Path) -> None:
    write(
        project,
        one_a=FLOW + "@flow\ndef twin(): ...\n",
        two_a=FLOW + '@flow(name="twin")\ndef other(): ...\n@flow\ndef fine(): ...\n',
    )
    library = load_flows(["one_a.py", "two_a.py"])
    assert set(library.flows) == {"fine"}
    [problem] = problems(library)
    assert f"{project / 'one_a.py'}:2" in problem
    assert f"{project / 'two_a.py'}:2" in problem


def test_a_flow_seen_in_two_modules_is_one(project: Path) -> None:
    write(
        project,
        base_a=FLOW + "@flow\ndef shared(): ...\n",
        user_a=FLOW + "from base_a import shared\n@flow\ndef more(): ...\n",
    )
    library = load_flows(["user_a.py", "base_a.py"])
    assert (set(library.flows), problems(library)) == ({"shared", "more"}, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_library\n", "No module named 'no_such_library'"),
        ("x = 1\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken.py:2\)"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys\nsys.exit(4)\n", r"called sys.exit\(4\) while it was imported"),
        ("x = 1\n", "it has no flow"),
        (FLOW + "@flow\ndef f(x: 'Nowhere'): ...\n", "Nowhere"),
        (FLOW + "@flow(retries=-1)\ndef f(): ...\n", "retries=-1"),
    ],
)
def test_what_is_wrong_with_a_module_is_told_and_the_others_are_loaded(project: Path, text: str, reason: str) -> None:
    write(project, broken=text, good_a=FLOW + "@flow\ndef good(): ...\n")
    library = load_flows(["broken.py", "good_a.py"])
    assert set(library.flows) == {"good"}
    with pytest.raises(Exception, match=reason):
        raise library.problems[0]


def test_what_is_not_there_is_told(project: Path) -> None:
    library = load_flows(["flows/nowhere.py", "no.such.module"])
    assert "there is no such file" in problems(library)[0]
    assert "there is no such module" in problems(library)[1]
