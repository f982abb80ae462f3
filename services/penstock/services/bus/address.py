"""Bus URLs, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from penstock.events.errors import PenstockError

_KINDS = {"kafka": "kafka", "redis": "redis", "rediss": "redis", "unix": "redis"}


class BusUrlError(PenstockError, ValueError):
    """PENSTOCK_BUS_URL names no bus that we know."""

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]  # the rest may hold a password
        super().__init__(
            f"a URL that begins with {scheme!r} names no bus; write kafka://host:9092, redis://host:6379/0"
            " or unix:///path/to.sock"
        )


@dataclass(frozen=True, slots=True)
class BusAddress:
    """kind: "kafka" or "redis".  server: bootstrap servers with commas, or a Redis URL.  prefix: before every topic."""

    kind: str
    server: str
    prefix: str = ""


def parse_address(url: str) -> BusAddress:
    """`kafka://a:9092,b:9092?prefix=x.`, `redis://…?prefix=x:`, `unix:///socket?prefix=x:`.  Raises BusUrlError."""
    parts = urlsplit(url)
    kind = _KINDS.get(parts.scheme)
    if kind is None or not (parts.netloc or (parts.scheme == "unix" and parts.path)):
        raise BusUrlError(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    prefix = query.pop("prefix", "")
    if kind == "kafka":
        return BusAddress(kind, parts.netloc, prefix)
    base = url.partition("?")[0]
    return BusAddress(kind, f"{base}?{urlencode(query)}" if query else base, prefix)
