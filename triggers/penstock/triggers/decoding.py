"""JSON text to events, every value of a repeated key kept."""

from __future__ import annotations

import json
from typing import Any

from penstock.triggers.flattening import Both


def decode(body: bytes) -> Any:
    """An event as JSON, with `Both` where a key is repeated; None where the text is no JSON.  Never raises.

    Lone surrogates pass; NaN and infinities are no JSON.
    """
    try:
        return json.loads(body, object_pairs_hook=_content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _content(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated: dict[str, list[object]] = {}
        for key, value in pairs:
            repeated.setdefault(key, []).append(value)
        content = {key: values[0] if len(values) == 1 else Both(values) for key, values in repeated.items()}
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
