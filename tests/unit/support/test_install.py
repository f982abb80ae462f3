"""A service that cannot be had is named in one line, with the way to get it."""

from __future__ import annotations

import pytest
from tests.support.services import install
from tests.support.services.process import ServiceMissingError


def test_what_is_missing_is_said_in_one_line_with_what_to_install_or_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "is_root", lambda: False)
    with pytest.raises(ServiceMissingError) as missing:
        install.find(install.on_path("no-such-program"), what="a thing", packages=["thing"], variable="PENSTOCK_TEST_X")
    text = str(missing.value)
    assert "\n" not in text
    assert "apt-get install thing" in text
    assert "PENSTOCK_TEST_X" in text


def test_what_is_there_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "is_root", lambda: True)
    assert install.find(install.on_path("sh"), what="a shell", packages=["none"], variable="X").endswith("/sh")


def test_the_program_is_looked_for_again_after_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(install, "is_root", lambda: True)
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/usr/bin/apt-get")
    monkeypatch.setattr(install, "_install", installed.extend)

    def find_it() -> str | None:
        return "/usr/sbin/thing" if installed else None

    assert install.find(find_it, what="a thing", packages=["thing"], variable="X") == "/usr/sbin/thing"
    assert installed == ["thing"]
