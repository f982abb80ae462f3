"""Every example of docs/flows.md is a program that prints what stands below it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs/flows.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```)?", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_its_examples() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") >= 13
    assert sum(bool(printed) for _, printed in PROGRAMS) == PAGE.count("```text")


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_prints_what_stands_below_it(program: str, printed: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == (printed, 0), done.stderr


def test_the_example_of_a_trip_books_it_or_gives_all_back(tmp_path: Path) -> None:
    program = Path(__file__).parents[3] / "examples/travel/travel.py"
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "booked: train to Linz",
            "booked: hotel to Linz",
            "['train 36', 'hotel 36']",
            "booked: train to Graz",
            "booked: hotel to Graz",
            "given back: hotel 36",
            "given back: train 36",
            "no trip: the card takes 100, not 300",
        ],
    ), done.stderr
