"""The version of users' code: the git commit of its folder, `-dirty` where tracked files differ from it.

In an image there is no git: there PENSTOCK_CODE_VERSION says it, for all code of the process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

_PATIENCE = 5.0  # seconds for one question to git
DIRTY = "-dirty"
VARIABLE = "PENSTOCK_CODE_VERSION"


def version_of(folder: Path) -> str | None:
    """The commit (40 digits) that is checked out in `folder`; None where there is no git, or no commit yet.

    Files that git does not track do not make it dirty: caches and data lie there too.
    """
    if said := os.environ.get(VARIABLE):
        return said
    commit = _asked(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return None
    changed = _asked(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit if changed == "" else commit + DIRTY  # None: git could not say, so nothing is promised


def versions_of(places: Iterable[str]) -> dict[str, str | None]:
    """The versions by place (`file:line`); each folder is asked for once."""
    folders = {place: Path(place.rpartition(":")[0]).parent for place in places}
    known = {folder: version_of(folder) for folder in set(folders.values())}
    return {place: known[folder] for place, folder in folders.items()}


def _asked(folder: Path, *question: str) -> str | None:
    """What git answers; None where it does not."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # it must not hold up the user's own git
    try:
        done = subprocess.run(  # noqa: S603 -- no shell, and nothing of a user's in it but the folder
            ["git", "-C", str(folder), *question],  # noqa: S607 -- the git that the user has
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
