"""`artifact`: what a run shows to people besides its result: texts, tables, links, images, progress.

    artifact.markdown("# Routes\\n…", key="report")
    artifact.table([{"truck": 7, "km": 12}], key="trucks")
    artifact.progress(40, key="upload")

An artifact is a call named `artifact` in the run's journal, with the artifact as its result; the latest of one key is
the one that is shown. Without a server it is logged.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.flows.context import current_context, get_logger
from penstock.flows.errors import ArtifactError
from penstock.flows.recorded import recorded

Kind: TypeAlias = Literal["markdown", "table", "link", "image", "progress"]
LARGEST_IMAGE = 512 << 10  # bytes of a file that is kept in the journal; larger ones are linked
_IMAGES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}
_SAFE_URLS = ("https://", "http://", "mailto:")


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an artifact.  key: its name within the run, "" for one that none replaces.  data: by kind."""

    kind: Kind
    data: Any
    key: str = ""
    description: str = ""
    v: int = 1


class Artifacts:
    """The ways to make one. All return what has been kept; each raises ArtifactError for what cannot be shown."""

    def markdown(self, text: str, *, key: str = "", description: str = "") -> Artifact:
        """A text in Markdown."""
        return _keep("markdown", _of_type(text, str, "text"), key, description)

    def table(
        self, rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]], *, key: str = "", description: str = ""
    ) -> Artifact:
        """Rows, each a mapping from column to value; or a mapping from column to its values."""
        return _keep("table", _table(rows), key, description)

    def link(self, url: str, *, text: str = "", key: str = "", description: str = "") -> Artifact:
        """A link; `text` is what is shown for it."""
        return _keep("link", {"url": _safe(url), "text": text or url}, key, description)

    def image(self, image: str | Path, *, key: str = "", description: str = "") -> Artifact:
        """An image by URL, or a file (PNG, JPEG, GIF, SVG up to 512 KiB), which is kept with the run."""
        where = str(image)
        url = _safe(where) if "://" in where else _file(Path(image))
        return _keep("image", {"url": url}, key, description)

    def progress(self, percent: float, *, key: str, description: str = "") -> Artifact:
        """How far something is, from 0 to 100; the same key again moves it."""
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise ArtifactError(f"progress {percent!r}: give a number from 0 to 100")
        return _keep("progress", float(percent), key, description)


artifact = Artifacts()


def _keep(kind: Kind, data: Any, key: str, description: str) -> Artifact:
    made = Artifact(kind=kind, data=data, key=key, description=description)
    context = current_context()
    if context is None or context.journal is None:
        get_logger().info("artifact %s %s: %s", kind, key, msgspec.json.encode(data).decode()[:500])
        return made
    return recorded("artifact", {"artifact": made}, lambda: made, Artifact)


def _table(rows: Any) -> dict[str, Any]:
    if isinstance(rows, Mapping):
        lengths = {len(values) for values in rows.values()}
        if len(lengths) > 1:
            raise ArtifactError(f"the columns of a table have different lengths: {sorted(lengths)}")
        listed = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    else:
        listed = [_of_type(row, Mapping, "each row of a table") for row in rows]
    columns = list(dict.fromkeys(str(name) for row in listed for name in row))
    return {"columns": columns, "rows": [[row.get(name) for name in columns] for row in listed]}


def _safe(url: str) -> str:
    if not url.startswith(_SAFE_URLS):
        raise ArtifactError(f"URL {url!r}: it has to begin with one of {', '.join(_SAFE_URLS)}")
    return url


def _file(path: Path) -> str:
    kind = _IMAGES.get(path.suffix.lower())
    if kind is None:
        raise ArtifactError(f"image {path}: its name has to end in one of {', '.join(_IMAGES)}")
    body = path.read_bytes()
    if len(body) > LARGEST_IMAGE:
        raise ArtifactError(
            f"image {path} has {len(body)} bytes, at most {LARGEST_IMAGE} are kept; give its URL instead"
        )
    return f"data:{kind};base64,{base64.b64encode(body).decode()}"


def _of_type(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ArtifactError(f"{what} has to be a {kind.__name__.lower()}, not {type(value).__name__}")
    return value
