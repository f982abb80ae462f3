"""Finds the programs that the test services need; where the user is root, apt-get brings what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tests.support.services.process import ServiceMissingError, is_root


def find(find_it: Callable[[], str | None], *, what: str, packages: Sequence[str], variable: str) -> str:
    """The path that `find_it` gives, if need be after installing Debian packages.

    Raises ServiceMissingError: one line that says what to install, or which variable to set.
    """
    found = find_it()
    if found is None and is_root() and shutil.which("apt-get"):
        _install(tuple(packages))
        found = find_it()
    if found is None:
        raise ServiceMissingError(
            f"the tests need {what}: install it (Debian, Ubuntu: `apt-get install {' '.join(packages)}`)"
            f" or set {variable}"
        )
    return found


def on_path(*names: str) -> Callable[[], str | None]:
    """Looks for the first of `names` on PATH, and where Debian keeps servers."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return lambda: next((found for name in names if (found := shutil.which(name, path=path))), None)


def in_folders(pattern: str) -> Callable[[], str | None]:
    """Looks for the newest match of an absolute glob pattern."""
    return lambda: max((str(path) for path in Path("/").glob(pattern.lstrip("/"))), default=None)


@cache
def _update() -> None:
    _apt_get("update")


def _install(packages: tuple[str, ...]) -> None:
    _update()
    _apt_get("install", "--yes", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServiceMissingError(f"`apt-get {' '.join(arguments)}` failed: {last}")
