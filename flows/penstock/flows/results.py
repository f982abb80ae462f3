"""Results and arguments as JSON: what the journal keeps, and what it names calls by."""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from penstock.flows.errors import TaskResultError

MAX_RESULT = 1 << 20  # bytes of JSON
_PLAIN = (type(None), bool, int, float, str, list, dict, tuple)
_NUL = b"\\u0000"


def encode_result(value: object, name: str) -> bytes:
    """The result of call `name` as JSON of at most 1 MiB, as rows hold it.  Raises TaskResultError."""
    body = encode_json(value, name)
    if len(body) > MAX_RESULT:
        raise TaskResultError(name, f"it has {len(body)} bytes as JSON, at most {MAX_RESULT} are kept")
    return body


def encode_json(value: object, name: str) -> bytes:
    r"""The result of call `name` as JSON.

    Raises TaskResultError for what JSON or the databases cannot hold: other objects, NaN, infinity, the character NUL.
    """
    try:
        body = msgspec.json.encode(value, enc_hook=_encodable)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TaskResultError(name, str(error) or type(error).__name__) from error
    if b"null" in body and _holds_no_number(value):  # msgspec writes NaN as null, which would come back as None
        raise TaskResultError(name, "it holds NaN or infinity, which JSON has not")
    if _NUL in body and _holds_nul(msgspec.json.decode(body)):
        raise TaskResultError(name, r"it holds the character NUL (\u0000), which PostgreSQL cannot store")
    return body


def is_plain(value: object) -> bool:
    """Whether JSON gives the value back as it is (for the outermost value; a tuple comes back as a list)."""
    return type(value) in _PLAIN


class ResultType:
    """What the return annotation of a function says about decoding its recorded result."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    @cached_property
    def known(self) -> bool:
        """Whether there is an annotation that a recorded result can be decoded by."""
        return self._decode is not None

    def decode(self, body: bytes) -> Any:
        """The recorded result as the function returned it; without an annotation, or where it does not fit, as JSON."""
        if self._decode is not None:
            try:
                return self._decode(body)
            except (ValidationError, msgspec.ValidationError):
                pass  # the annotation does not tell the truth; the JSON value is what there is
        return msgspec.json.decode(body)

    @cached_property
    def _decode(self) -> Callable[[bytes], Any] | None:
        annotation = _return_annotation(self._fn)
        if annotation is inspect.Signature.empty or annotation is Any or annotation is object:
            return None
        try:
            return TypeAdapter(annotation).validate_json
        except (PydanticSchemaGenerationError, PydanticUserError):
            return _by_msgspec(annotation)


def digest_arguments(arguments: Mapping[str, Any]) -> str:
    """32 hexadecimal digits for the bound arguments; equal ones give the same in every process.

    An argument that has no JSON form (a connection, a lock) counts by its type alone: such calls are told apart by
    their order.
    """
    digest = blake2b(digest_size=16)
    for name, value in arguments.items():
        for part in (name.encode(), _canonical(value)):
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
    return digest.hexdigest()


def encode_arguments(value: object) -> bytes:
    """JSON that is equal for equal values of one type.  Raises TypeError where a value has no JSON form."""
    return msgspec.json.encode(value, enc_hook=_encodable, order="deterministic")


def _canonical(value: object) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_nameable, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError):  # e.g. a dict whose keys are tuples
        return msgspec.json.encode(_type_name(value))


def _nameable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="python")
    known = getattr(value, "call_name", None)  # of a future: what its call is named by
    return {"type": _type_name(value)} if known is None else {"call": known}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _encodable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"an object of type {_type_name(value)} has no JSON form")


def _return_annotation(fn: Callable[..., Any]) -> Any:
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except (NameError, TypeError, AttributeError):  # written as text and not resolvable here
        return inspect.Signature.empty
    return hints.get("return", inspect.Signature.empty)


def _by_msgspec(annotation: Any) -> Callable[[bytes], Any] | None:
    try:
        return msgspec.json.Decoder(annotation).decode
    except TypeError:  # neither library knows the type
        return None


def _holds_no_number(value: object) -> bool:
    """Whether NaN or infinity is anywhere in a value that msgspec could encode."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Decimal):
        return False  # written as text
    return any(_holds_no_number(each) for each in _inside(value))


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(_holds_nul, value))


def _inside(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, BaseModel):
        return list(dict(value).values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    return []
