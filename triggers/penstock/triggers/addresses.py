"""IP addresses as values: text to packed bytes, and blocks of them (CIDR)."""

from __future__ import annotations

import ipaddress
import re

_V4 = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12}){3}\Z")
_V6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*\Z")
_LONGEST = 52  # four octets with leading zeros; the longest IPv6 literal is shorter
_MAPPED = b"\x00" * 10 + b"\xff\xff"


def packed(text: str) -> bytes | None:
    """The 4 or 16 bytes of an address literal, or None where the text is none.

    Leading zeros in an octet are decimal; an IPv4-mapped IPv6 address is its IPv4 address.
    """
    if not 2 <= len(text) <= _LONGEST:
        return None
    if _V4.match(text):
        octets = [int(octet) for octet in text.split(".")]
        return bytes(octets) if max(octets) < 256 else None
    if _V6.match(text):
        try:
            found = ipaddress.IPv6Address(text).packed
        except ValueError:
            return None
        return found[12:] if found.startswith(_MAPPED) else found
    return None


def block(text: str) -> tuple[bytes, int]:
    """A CIDR block as the packed first address and the number of leading bits that count.

    Host bits may be set; they are cleared.  Raises ValueError with the reason.
    """
    literal, slash, mask = text.partition("/")
    address = packed(literal)
    if address is None or not slash:
        raise ValueError(f"{text!r} is no CIDR block; write an address, a slash and a mask, e.g. 10.0.0.0/24")
    width = len(address) * 8
    if not re.fullmatch(r"\+?[0-9]{1,9}", mask) or int(mask) >= width:
        raise ValueError(f"the mask of {text!r} must be a whole number from 0 to {width - 1}")
    return truncated(address, int(mask)), int(mask)


def truncated(address: bytes, bits: int) -> bytes:
    """The address with all but its leading `bits` cleared."""
    spare = len(address) * 8 - bits
    return (int.from_bytes(address, "big") >> spare << spare).to_bytes(len(address), "big")
