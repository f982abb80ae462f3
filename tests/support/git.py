"""Repositories for tests of what is under git."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.services.install import find, on_path

_WHO = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    """What git answers there; it is installed where it is missing and we may."""
    program = find(on_path("git"), what="git", packages=["git"], variable="PATH")
    done = subprocess.run([program, *_WHO, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(folder: Path) -> str:
    """Everything in the folder as the first commit of a repository there.  Returns the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return git(folder, "rev-parse", "HEAD")
