"""Where `emit` sends: chosen from an argument, the environment, or the Penstock that runs here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from penstock.events.errors import PenstockError

Kind = Literal["kafka", "redis", "http"]
_KINDS: dict[str, Kind] = {
    "kafka": "kafka", "redis": "redis", "rediss": "redis", "unix": "redis", "http": "http", "https": "http",
}  # fmt: skip
INSTANCE_FILE = "instance.json"


class NoTargetError(PenstockError):
    """Nothing says where events should go."""


class TargetUrlError(PenstockError, ValueError):
    """A URL names nothing that events can be sent to."""


@dataclass(frozen=True, slots=True)
class Target:
    """kind; server: bootstrap servers with commas, a Redis URL, or the API's base URL.

    prefix: before every topic (bus only).  key: the API key (HTTP only).
    """

    kind: Kind
    server: str
    prefix: str = ""
    key: str = field(default="", repr=False)


def parse_target(url: str, key: str = "") -> Target:
    """`kafka://a:9092,b:9092`, `redis://…`, `unix:///socket`, each with `?prefix=…`, or `http(s)://…`.

    Raises TargetUrlError.
    """
    parts = urlsplit(url)
    kind = _KINDS.get(parts.scheme)
    if kind is None or not (parts.netloc or (parts.scheme == "unix" and parts.path)):
        scheme = url.partition("://")[0] if "://" in url else ""  # the rest may hold a password
        raise TargetUrlError(
            f"a URL that begins with {scheme!r} is no place to send events to; write kafka://host:9092,"
            " redis://host:6379/0, unix:///path/to.sock or http://host:4180"
        )
    if kind == "http":
        return Target(kind, url.rstrip("/"), key=key)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    prefix = query.pop("prefix", "")
    if kind == "kafka":
        return Target(kind, parts.netloc, prefix)
    # By hand: urlunsplit writes unix:/path, which the client does not read.
    server = f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return Target(kind, server, prefix)


def choose_target(url: str | None = None, *, key: str | None = None, environ: Mapping[str, str] = os.environ) -> Target:
    """The target of an emitter.

    url, else PENSTOCK_BUS_URL, else PENSTOCK_API_URL with PENSTOCK_API_KEY, else the Penstock that `penstock up` runs
    here: PENSTOCK_DATA_DIR, by default `.penstock` in this directory.
    Raises NoTargetError, TargetUrlError.
    """
    key = environ.get("PENSTOCK_API_KEY", "") if key is None else key
    names = ("PENSTOCK_BUS_URL", "PENSTOCK_API_URL", "PENSTOCK_URL")  # the last one is the older name
    for found in (url, *(environ.get(name) for name in names)):
        if found:
            return parse_target(found, key)
    return _running_here(Path(environ.get("PENSTOCK_DATA_DIR") or ".penstock"), key)


def _running_here(folder: Path, key: str) -> Target:
    try:
        instance = json.loads((folder / INSTANCE_FILE).read_text())
        url, key_file = str(instance["url"]), Path(instance["key_file"])
        return parse_target(url, key or key_file.read_text().strip())
    except FileNotFoundError:
        raise NoTargetError(
            f"where should events go? Set PENSTOCK_BUS_URL (kafka://…, redis://…) or PENSTOCK_API_URL and"
            f" PENSTOCK_API_KEY, or start `penstock up` here: no Penstock runs in {folder}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoTargetError(f"{folder / INSTANCE_FILE} cannot be used: {error!r}; start `penstock up` again") from error
