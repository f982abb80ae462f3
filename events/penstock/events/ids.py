"""Identities: time-ordered ones for what happens once, derived ones for what must come out the same again."""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from uuid import UUID


def new_id(now_ms: int | None = None) -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, 74 random bits; sorts by time as text and as bytes.

    The standard library has it from Python 3.14 on; an application that only emits should need no package for it.
    """
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    rand = int.from_bytes(os.urandom(10), "big")
    value = (ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (rand >> 62 & 0xFFF) << 64 | 0b10 << 62 | rand & (1 << 62) - 1
    return str(UUID(int=value))


def derived_id(*parts: str) -> str:
    """32 hexadecimal digits, the same for the same parts; parts carry their length, so that none run together."""
    pieces: list[bytes] = []
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        pieces += len(raw).to_bytes(4, "big"), raw
    return blake2b(b"".join(pieces), digest_size=16).hexdigest()
