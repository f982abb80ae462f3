"""Fixtures for tests of commands: an API, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.command_line import Running

from penstock.services.cli import main


@pytest.fixture
def running(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with Running(sqlite_url) as found:
        monkeypatch.setenv("PENSTOCK_API_URL", found.api.url)
        monkeypatch.setenv("PENSTOCK_API_KEY", found.api.key)
        yield found


@pytest.fixture
def penstock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command.  Returns (exit code, what it printed, what it complained about)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
